"""The demo application: a chat whose clients keep their session when a node dies."""

from pathlib import Path

#: Where ``make chat`` installs the browser client, and the variant that a module of the page can import.
CLIENT_JS = Path(__file__).parent / "node_modules" / "socket.io-client" / "dist"
CLIENT_FILE = "socket.io.esm.min.js"
