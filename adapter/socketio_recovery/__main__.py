"""``python -m socketio_recovery``: looks into a cluster, and emits to it, from a shell. See ``docs/cli.md``."""

from .cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
