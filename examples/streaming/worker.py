"""The worker: takes questions, and sends the answers word by word. It knows of no node and of no page.

It is a program without asyncio and without a server, as a Celery task or a Django command would be.
"""

import itertools
import json
import os
import re
import signal
import threading
import uuid

import redis
from answers import ANSWERS
from socketio_recovery import PublishTimeout, RedisStreamsManager

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
#: The queue that nodes put questions into: a list of JSON objects with ``conversation`` and ``question``.
QUESTIONS = "streaming:questions"
#: How long an answer waits before its next word, in seconds.
PACE = float(os.environ.get("PACE", "0.07"))


def history_of(conversation):
    """The list that keeps what was said, for pages that come later: JSON arrays of an event and its data."""
    return f"streaming:history:{conversation}"


def room_of(conversation):
    return f"conversation:{conversation}"


class Worker:
    def __init__(self):
        self.redis = redis.Redis.from_url(REDIS_URL)
        self.manager = RedisStreamsManager(REDIS_URL, write_only=True)
        self.stopping = threading.Event()

    def run(self):
        """Answers questions, one after the other, until it is asked to stop."""
        while not self.stopping.is_set():
            try:
                if taken := self.redis.brpop([QUESTIONS], timeout=1):
                    self.answer(**json.loads(taken[1]))
            except (redis.RedisError, PublishTimeout) as error:
                print(f"worker: {error}", flush=True)
                self.stopping.wait(1)
        self.manager.close()

    def answer(self, conversation, question):
        answer = uuid.uuid4().hex
        self.say(conversation, "question", {"answer": answer, "text": question})
        words = 0
        for words, word in zip(itertools.count(1), tokens(question)):
            if self.stopping.wait(PACE):
                return
            self.say(conversation, "word", {"answer": answer, "number": words, "text": word})
        self.say(conversation, "end", {"answer": answer, "words": words})

    def say(self, conversation, event, data):
        history = history_of(conversation)
        # First the history: a page enters the room and then reads it, so that it sees each event here or there.
        with self.redis.pipeline() as commands:
            commands.rpush(history, json.dumps([event, data]))
            commands.ltrim(history, -3000, -1)
            commands.expire(history, 3600)
            commands.execute()
        self.manager.emit(event, data, room=room_of(conversation))


def tokens(question):
    """The answer in pieces, as they come. This is where you would ask a model::

    for chunk in client.chat.completions.create(..., stream=True):
        yield chunk.choices[0].delta.content or ""
    """
    yield from re.findall(r"\s*\S+", ANSWERS[question])


if __name__ == "__main__":
    worker = Worker()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.stopping.set())
    worker.run()
