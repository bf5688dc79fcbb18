"""``python -m socketio_recovery``: looks into a cluster, and emits to it, from a shell. See ``docs/cli.md``."""

from .cli.main import main

raise SystemExit(main())
