"""The chaos runner: real processes, real faults, and a checker that looks at every event of every client.

``python -m tests.chaos`` (or ``make chaos``) runs it.

============  ========================================================================
history.py    what happened in a run: emits, the log, what each client saw  (no I/O)
check.py      what is wrong with a history                                  (no I/O)
world.py      the cluster under test: Redis, nodes, clients, a record of the log
load.py       emitters, and moves between rooms
scenarios.py  the faults, by name
run.py        one scenario from start to verdict
plot.py       deliveries over time, as SVG                                  (no I/O)
report.py     figures, evidence, and how to repeat a run
============  ========================================================================
"""
