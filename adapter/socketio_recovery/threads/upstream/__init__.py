"""Everything that touches private parts of python-socketio and python-engineio, for synchronous servers."""
