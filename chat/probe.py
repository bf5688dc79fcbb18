"""The health check of a node's container: ``python -m chat.probe`` ends with status 0 if the node is up, else 1.

It asks for ``/healthz`` and not for ``/readyz``, because a node that waits for Redis is not ready but should go on
running.
"""

from __future__ import annotations

import http.client
import os
import sys


def main() -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=1.5)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
