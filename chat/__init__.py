"""The example application: a chat whose clients keep their session when a node dies."""

from pathlib import Path

#: The folder into which ``make chat`` installs the browser client.
CLIENT_JS = Path(__file__).parent / "node_modules" / "socket.io-client" / "dist"
#: The file in that folder that the page loads: an ES module.
CLIENT_FILE = "socket.io.esm.min.js"
