"""A chat room with FastAPI, python-socketio and connection state recovery. README.md says how to run it."""

import os
from contextlib import asynccontextmanager
from pathlib import Path

import socketio
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from socketio_recovery import AsyncRedisStreamsManager, drain_on_sigterm

manager = AsyncRedisStreamsManager(os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)


@asynccontextmanager
async def lifespan(api: FastAPI):
    await manager.start()  # follow the log before the first client comes
    drain_on_sigterm(manager, over=float(os.environ.get("DRAIN_OVER", "10")))
    yield
    await manager.drain()  # who has not left: after Ctrl+C
    await manager.close()


api = FastAPI(lifespan=lifespan)


@api.get("/")
async def page():
    return FileResponse(Path(__file__).with_name("index.html"))


@api.get("/readyz")
async def ready():
    """For the load balancer: not before the node follows the log, nor when it begins to stop."""
    return Response(status_code=200 if manager.healthy else 503)


@api.get("/healthz")
async def alive():
    """For what restarts the process."""
    return Response()


@api.post("/announcements")
async def announce(text: str):
    """Any part of the application may emit, on any node."""
    await sio.emit("announcement", text, to="lobby")


@sio.event
async def connect(sid, environ, auth):
    name = str((auth or {}).get("name", "somebody"))[:30]
    if manager.recovered(sid):
        await sio.emit("back", name, to="lobby")
        return  # it has its rooms and its session, and what it missed follows
    await sio.save_session(sid, {"name": name})
    await sio.enter_room(sid, "lobby")
    await sio.emit("joined", name, to="lobby")


@sio.event
async def say(sid, text):
    name = (await sio.get_session(sid))["name"]
    await sio.emit("said", {"name": name, "text": str(text)[:1000]}, to="lobby")


@sio.event
async def disconnect(sid, reason):
    name = (await sio.get_session(sid))["name"]
    await sio.emit("away", name, to="lobby")


app = socketio.ASGIApp(sio, api)
