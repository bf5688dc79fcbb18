"""A node: it takes questions to the worker, and streams the answers to its pages. README.md says how to run it."""

import json
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio
import socketio
from answers import ANSWERS
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, RedirectResponse
from socketio_recovery import AsyncRedisStreamsManager, drain_on_sigterm
from worker import QUESTIONS, REDIS_URL, history_of, room_of

FOLDER = Path(__file__).parent
CLIENT_JS = FOLDER.parents[1] / "chat/node_modules/socket.io-client/dist/socket.io.min.js"
NODE = f"node {os.getpid()}"
#: Whether pages may kill their node.
DEMO = os.environ.get("DEMO") == "1"

manager = AsyncRedisStreamsManager(REDIS_URL, max_disconnection_duration=120)
# Several processes share one port, so that two requests of a client may reach two of them: WebSocket only.
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager, transports=["websocket"])
store = redis.asyncio.Redis.from_url(REDIS_URL)


@asynccontextmanager
async def lifespan(api: FastAPI):
    await manager.start()
    drain_on_sigterm(manager)
    yield
    await manager.drain()
    await manager.close()
    await store.aclose()


api = FastAPI(lifespan=lifespan)


@api.get("/")
async def page():
    return FileResponse(FOLDER / "index.html")


@api.get("/socket.io.js")
async def client_js():
    """The browser client: from npm if this project has installed it, else from a CDN."""
    return (
        FileResponse(CLIENT_JS)
        if CLIENT_JS.exists()
        else RedirectResponse("https://cdn.socket.io/4.8.1/socket.io.min.js")
    )


@api.get("/readyz")
async def ready():
    return Response(status_code=200 if manager.healthy else 503)


@sio.event
async def connect(sid, environ, auth):
    recovered = manager.recovered(sid)
    if not recovered:  # else it is in its room, and what it missed follows
        conversation = str((auth or {}).get("conversation", "demo"))[:40]
        await sio.save_session(sid, {"conversation": conversation})
        await sio.enter_room(sid, room_of(conversation))
    # Straight from this node, but in its place in the order: what the client has missed comes before it.
    welcome = {"node": NODE, "reason": manager.recovery_reason(sid), "questions": list(ANSWERS), "demo": DEMO}
    await sio.emit("welcome", welcome, to=sid, ignore_queue=True)


@sio.event
async def history(sid):
    """For a new session: what was said before it entered the room. A client that recovers does not need it."""
    said = await store.lrange(history_of((await sio.get_session(sid))["conversation"]), 0, -1)
    return [json.loads(line) for line in said]


@sio.event
async def ask(sid, question):
    """Returns why the question is not taken, or ``None``."""
    if question not in ANSWERS:
        return "This example knows no answer to that."
    if await store.llen(QUESTIONS) >= 10:
        return "The worker has enough to do for now."
    job = {"conversation": (await sio.get_session(sid))["conversation"], "question": question}
    await store.lpush(QUESTIONS, json.dumps(job))


if DEMO:

    @sio.event
    async def kill(sid):
        """What makes this a demonstration: any page may kill its node. Nothing is cleaned up, nobody is told."""
        print(f"{NODE} is killed by its page", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


app = socketio.ASGIApp(sio, api)
