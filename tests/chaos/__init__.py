"""The chaos runner: it breaks a cluster of real processes in many ways, and checks every event of every client.

``python -m tests.chaos`` (or ``make chaos``) runs it.

============  ========================================================================
history.py    what happened in a run: emits, the log, what each client saw  (no I/O)
check.py      finds what is wrong with a history                            (no I/O)
world.py      the cluster under test: Redis, nodes, clients, a log reader
emitters.py   emits events, and moves clients between rooms
traffic.py    emits events that concern no client
scenarios.py  the faults, by name
run.py        runs one scenario from start to verdict
plot.py       draws deliveries over time, as SVG                            (no I/O)
report.py     writes figures, evidence, and how to repeat a run
============  ========================================================================
"""
