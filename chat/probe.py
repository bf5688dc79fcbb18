"""Whether the node of this container is up: ``python -m chat.probe`` ends with status 0 if it is.

``/healthz``, not ``/readyz``: a node that waits for Redis is to be left alone, not started again.
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
