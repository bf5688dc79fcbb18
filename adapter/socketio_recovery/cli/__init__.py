"""The command line.  Each command is a module with ``add`` (its arguments) and ``run``; ``main.py`` lists them."""
