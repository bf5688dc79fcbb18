"""What this library relies on of python-socketio, python-engineio and the Redis clients, one test for each.

A new release of theirs that changes it should fail here, with a sentence that says what changed, and nowhere else. The
tests need neither Redis nor a network. Fakes stand only at the lowest level: a WebSocket, the environ of a request, and
a server that speaks the Redis protocol.
"""
