"""Everything in this library that touches private parts of python-socketio and python-engineio."""
