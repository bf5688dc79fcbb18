"""What runs on one machine: a Redis server, free ports, processes. The chat, the tests and the benchmarks share it."""
