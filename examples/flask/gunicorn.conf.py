"""Settings of gunicorn, which finds this file by itself: a worker's clients are sent elsewhere before it stops."""

import signal

graceful_timeout = 30


def post_worker_init(worker):
    """A worker is ready to begin."""
    from app import manager, socketio

    manager.start()  # follow the log before the first client comes
    stop = signal.getsignal(signal.SIGTERM)

    def drain(signum, frame):
        stop(signum, frame)  # take no new connections
        socketio.start_background_task(manager.drain)  # and close those that are open

    signal.signal(signal.SIGTERM, drain)


def worker_exit(server, worker):
    """A worker is about to end."""
    from app import manager

    manager.drain()
    manager.close()
