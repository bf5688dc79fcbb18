"""Redis behind TLS, with real certificates: ``rediss://`` works, and nobody in between is taken for it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from socketio_recovery import AsyncRedisStreamsManager
from socketio_recovery.errors import RedisUnavailable

from local.redis_server import RedisServer
from tests.support.js_clients import WEBSOCKET, JsClients, settle
from tests.support.node_process import StartNode, quiet

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command to make certificates with")


class Certificates:
    """An authority, and what it signed for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.certificate, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._openssl("req", "-x509", *new_key, "-subj", "/CN=test CA", "-keyout", folder / "ca.key", "-out", self.ca)
        self._openssl("req", *new_key, "-subj", "/CN=redis", "-keyout", self.key, "-out", folder / "csr.pem")
        extensions = folder / "extensions"
        extensions.write_text("subjectAltName=IP:127.0.0.1\n")
        self._openssl(
            *("x509", "-req", "-in", folder / "csr.pem", "-CA", self.ca, "-CAkey", folder / "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", self.certificate),
        )

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def tls(server: RedisServer, certificates: Certificates) -> AsyncIterator[str]:
    """TLS in front of a real server, as stunnel does it: the servers at hand are built without. Where to connect to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        behind, to_redis = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            await asyncio.gather(copy(reader, to_redis), copy(behind, writer))
        finally:
            for stream in (to_redis, writer):
                stream.close()
                with suppress(OSError):
                    await stream.wait_closed()

    front = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield f"rediss://127.0.0.1:{front.sockets[0].getsockname()[1]}/0"
    finally:
        front.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cluster_over_tls(
    redis_server: RedisServer, certificates: Certificates, start_node: StartNode, clients: JsClients
) -> None:
    async with tls(redis_server, certificates) as url:
        manager = {"redis_options": {"ssl_ca_certs": str(certificates.ca)}}
        a = await start_node(redis=url, manager=manager)
        b = await start_node(redis=f"{url}?ssl_ca_certs={certificates.ca}")
        client = await clients.open(a, options=WEBSOCKET)
        await client.call("save", {"n": 1})
        await client.move(b)
        a.kill()
        await b.emit("e", 1)
        assert (await client.connected(2))["recovered"] is True
        assert await settle(b, client) == [("e", 1)]
        assert (await client.state())["session"] == {"n": 1}
        quiet(b)
        b.stop()


@pytest.mark.parametrize("wrong", ["unknown authority", "other name", "no TLS"])
async def test_a_server_that_is_not_the_one(
    redis_server: RedisServer,
    certificates: Certificates,
    channel: str,
    wrong: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is sent to it, and the log says why."""
    async with tls(redis_server, certificates) as url:
        options: dict[str, Any] = {"ssl_ca_certs": str(certificates.ca), "ssl_check_hostname": True}
        if wrong == "unknown authority":
            del options["ssl_ca_certs"]
        elif wrong == "other name":
            url = url.replace("127.0.0.1", "localhost")
        else:
            url = redis_server.url.replace("redis://", "rediss://")
        async with AsyncRedisStreamsManager(
            url, channel, write_only=True, redis_options=options, publish_timeout=2
        ) as manager:
            with pytest.raises((TimeoutError, RedisUnavailable)):
                await manager.emit("e", 1)
    if wrong != "no TLS":
        assert "certificate verify failed" in caplog.text
