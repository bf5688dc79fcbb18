"""A chat with Flask-SocketIO. Its clients recover, on any node: README.md says how to run it."""

import os

from flask import Flask, request, send_file, session
from flask_socketio import SocketIO, emit, join_room, leave_room, rooms
from socketio_recovery import RedisStreamsManager

app = Flask(__name__)
app.config["SECRET_KEY"] = os.environ.get("SECRET_KEY", "change me")  # the same on all nodes
manager = RedisStreamsManager(os.environ.get("REDIS_URL", "redis://localhost:6379/0"), max_disconnection_duration=120)
socketio = SocketIO(app, client_manager=manager, async_mode=os.environ.get("ASYNC_MODE", "threading"))


@app.get("/")
def page():
    return send_file("index.html")


@app.get("/readyz")
def ready():
    """For the load balancer: whether this node takes clients now."""
    return "", 200 if manager.healthy else 503


@socketio.event
def connect(auth=None):
    """Also runs when a client recovers. Then its session is what it was, and its rooms are entered already."""
    if not manager.recovered(request.sid):
        session["said"] = 0
    emit("welcome", whoami())


@socketio.event
def login(name):
    session["user"] = name
    return whoami()


@socketio.event
def join(room):
    for old in rooms():
        if old != request.sid:
            leave_room(old)
    join_room(room)
    session["room"] = room
    emit("message", {"text": f"{session.get('user', 'somebody')} is here"}, to=room)


@socketio.event
def say(text):
    session["said"] += 1
    message = {"user": session.get("user", "somebody"), "text": text, "number": session["said"]}
    emit("message", message, to=session["room"])


@socketio.event
def whoami():
    return {
        "node": os.getpid(),
        "recovered": manager.recovered(request.sid),
        "session": dict(session),
        "rooms": [room for room in rooms() if room != request.sid],
    }


@socketio.event
def disconnect(reason):
    """Runs once for each client that is gone, on another node if its own is dead. The session is there."""
    app.logger.info("%s left: %s", session.get("user", "somebody"), reason)


if __name__ == "__main__":
    socketio.run(app, port=int(os.environ.get("PORT", "8000")), allow_unsafe_werkzeug=True)
