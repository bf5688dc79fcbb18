"""What ``aio/redis_link.py`` uses of redis-py and valkey-py beyond their documented interface.

The server is a fake that speaks the Redis protocol on a local socket. fakeredis has no sockets; what it needs is tested
at the end.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from socketio_recovery.aio.redis_link import _NOT_NOW_CLASSES, _NOT_NOW_CODES, RedisLink, RedisTransport
from socketio_recovery.aio.redis_servers import RedisServers
from socketio_recovery.errors import RedisUnavailable

from tests.support.waiting import until

hiredis = pytest.importorskip("hiredis")


def installed() -> list[str]:
    found = []
    for name in ("redis", "valkey"):
        try:
            import_module(name)
        except ImportError:
            continue
        found.append(name)
    return found


class Server:
    """Speaks the Redis protocol: answers what belongs to opening a connection, and as it is told to else."""

    def __init__(self) -> None:
        self.commands: list[tuple[bytes, ...]] = []
        #: Connections that are open; how many there were.
        self.open = self.accepted = 0
        #: What it answers to commands: bytes of the protocol. Others get ``+OK``.
        self.answers: dict[bytes, bytes] = {}
        #: Cleared while it answers nothing to ``WAITS``.
        self.gate = asyncio.Event()
        self.port = 0

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.accepted += 1
        parser = hiredis.Reader()
        try:
            while data := await reader.read(1 << 16):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.commands.append(tuple(command))
                    if command[0] == b"WAITS":
                        await self.gate.wait()
                    writer.write(self.answers.get(command[0], self._usual(command)))
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    def _usual(self, command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return b"%3\r\n+server\r\n+redis\r\n+version\r\n+7.0.0\r\n+proto\r\n:" + command[1] + b"\r\n"
        return b"+OK\r\n"

    def of(self, name: bytes) -> list[tuple[bytes, ...]]:
        return [command for command in self.commands if command[0] == name]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    fake = Server()
    running = await fake.start()
    yield fake
    fake.gate.set()
    running.close()
    await until(lambda: fake.open == 0, "closed connections")


@pytest.fixture(params=installed())
def library(request: pytest.FixtureRequest) -> str:
    """``redis`` or ``valkey``."""
    name: str = request.param
    return name


Client = Callable[..., Any]


@pytest.fixture
async def client(library: str, server: Server) -> AsyncIterator[Client]:
    """Makes clients of the server."""
    made = []

    def make(**options: Any) -> Any:
        cls = getattr(import_module(library + ".asyncio"), library.capitalize())
        found = cls.from_url(f"{library}://127.0.0.1:{server.port}/0", **options)
        made.append(found)
        return found

    yield make
    for found in made:
        await found.aclose()


async def opened(client: Any) -> Any:
    """A connection, opened as :class:`RedisLink` opens it."""
    connection = client.connection_pool.make_connection()
    await connection.connect()
    return connection


# -- the pool -------------------------------------------------------------------------------------------


async def test_a_pool_makes_connections_that_it_does_not_keep(client: Client, server: Server) -> None:
    """``make_connection`` opens nothing. The pool neither counts nor closes what it made."""
    pool = client(max_connections=1).connection_pool
    connection, other = pool.make_connection(), pool.make_connection()
    assert connection is not other
    assert server.accepted == 0
    await connection.connect()
    await pool.disconnect()
    await connection.send_packed_command(connection.pack_commands([("PING",)]), check_health=False)
    assert await connection.read_response(disable_decoding=True) == b"OK"
    await connection.disconnect(nowait=True)


async def test_the_pool_of_an_asyncio_client_has_a_coroutine_disconnect(library: str, client: Client) -> None:
    """By this, a client for threads is refused at once."""
    assert inspect.iscoroutinefunction(client().connection_pool.disconnect)
    for_threads = getattr(import_module(library), library.capitalize())()
    assert not inspect.iscoroutinefunction(for_threads.connection_pool.disconnect)
    with pytest.raises(TypeError, match="asyncio client"):
        RedisServers(for_threads)


async def test_a_connection_logs_in_and_selects_its_database_when_it_connects(library: str, server: Server) -> None:
    """So does each link, with the settings of the client that the application passed."""
    cls = getattr(import_module(library + ".asyncio"), library.capitalize())
    client = cls.from_url(f"{library}://me:secret@127.0.0.1:{server.port}/3")
    connection = await opened(client)
    sent = [argument for command in server.commands for argument in command]
    assert {b"AUTH", b"me", b"secret"} <= set(sent)
    assert server.of(b"SELECT") == [(b"SELECT", b"3")]
    await connection.disconnect(nowait=True)
    await client.aclose()


# -- opening and closing --------------------------------------------------------------------------------


async def test_a_retry_without_retries_can_be_made_of_the_connections_own(
    library: str, client: Client, server: Server
) -> None:
    """A command, or a connect, must not be repeated behind the back of a link."""
    connection = client().connection_pool.make_connection()
    backoff = import_module(library + ".backoff").NoBackoff()
    connection.retry = type(connection.retry)(backoff, 0)
    server.answers[b"CLIENT"] = server.answers[b"HELLO"] = server.answers[b"SELECT"] = b"-LOADING not now\r\n"
    connection.db = 1
    with pytest.raises(import_module(library).ConnectionError):
        await connection.connect()
    assert server.accepted == 1
    await connection.disconnect(nowait=True)


async def test_a_connection_without_timeout_waits_for_as_long_as_it_takes(client: Client, server: Server) -> None:
    """``socket_timeout`` is set to ``None`` before ``connect``: a reader waits for a quiet stream."""
    patient = client(socket_timeout=0.001, socket_connect_timeout=30).connection_pool.make_connection()
    patient.socket_timeout = None
    await patient.connect()
    await patient.send_packed_command(patient.pack_commands([("WAITS",)]), check_health=False)
    waits = asyncio.create_task(patient.read_response(disable_decoding=True))
    other = await opened(client(socket_timeout=30))
    await other.send_packed_command(other.pack_commands([("WAITS",)]), check_health=False)
    other.socket_timeout = 0.001
    with pytest.raises(Exception, match="Timeout"):
        await other.read_response(disable_decoding=True)
    assert not waits.done()
    server.gate.set()
    assert await waits == b"OK"
    for connection in (patient, other):
        await connection.disconnect(nowait=True)


async def test_disconnect_closes_without_waiting(client: Client, server: Server) -> None:
    connection = await opened(client())
    await connection.disconnect(nowait=True)
    await until(lambda: server.open == 0, "a closed connection")
    await connection.disconnect(nowait=True)  # once more is no error


async def test_a_connection_that_never_connected_can_be_disconnected(client: Client) -> None:
    """``RedisLink.close`` is called for one whose ``connect`` was cancelled."""
    await client().connection_pool.make_connection().disconnect(nowait=True)


async def test_a_server_that_is_not_there_is_an_oserror_or_an_error_of_the_library(
    library: str, server: Server
) -> None:
    cls = getattr(import_module(library + ".asyncio"), library.capitalize())
    link = RedisLink(RedisServers(cls.from_url(f"{library}://127.0.0.1:1/0")), 5)
    with pytest.raises(RedisUnavailable):
        await link.call("PING")
    assert link.number == 1


# -- commands and replies -------------------------------------------------------------------------------


async def test_packed_commands_are_sent_as_they_are_and_replies_are_not_decoded(client: Client, server: Server) -> None:
    """``send_packed_command`` takes what ``pack_commands`` returns, and bytes; ``decode_responses`` does not matter."""
    connection = await opened(client(decode_responses=True))
    server.commands.clear()
    commands = [("XADD", "key", "1-1", b"\xff", 1), ("PING",)]
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    packed = b"".join(hiredis.pack_command(command) for command in commands)
    await connection.send_packed_command(packed, check_health=False)
    server.answers[b"LAST"] = b"$4\r\n\xff\xfe\xfd\xfc\r\n"
    await connection.send_packed_command(connection.pack_commands([("LAST",)]), check_health=False)
    replies = [await connection.read_response(disable_decoding=True) for _ in range(5)]
    assert replies == [b"OK"] * 4 + [b"\xff\xfe\xfd\xfc"]
    assert server.commands == [(b"XADD", b"key", b"1-1", b"\xff", b"1"), (b"PING",)] * 2 + [(b"LAST",)]
    await connection.disconnect(nowait=True)


async def test_nothing_is_sent_besides_the_commands_without_a_health_check(client: Client, server: Server) -> None:
    server.answers[b"PING"] = b"+PONG\r\n"
    connection = await opened(client(health_check_interval=3600))
    command = connection.pack_commands([("ONE",)])
    server.commands.clear()
    for check_health in (False, True):
        connection.next_health_check = 0  # it is due
        await connection.send_packed_command(command, check_health=check_health)
        await connection.read_response(disable_decoding=True)
    assert server.commands == [(b"ONE",), (b"PING",), (b"ONE",)]
    await connection.disconnect(nowait=True)


async def test_an_error_reply_is_raised_and_the_connection_stays_in_step(client: Client, server: Server) -> None:
    """It is an instance of the library's ``ResponseError``."""
    connection = await opened(client())
    server.answers[b"WRONG"] = b"-ERR no such thing\r\n"
    await connection.send_packed_command(connection.pack_commands([("WRONG",), ("PING",)]), check_health=False)
    with pytest.raises(Exception, match="no such thing") as raised:
        await connection.read_response(disable_decoding=True)
    assert "ResponseError" in [cls.__name__ for cls in type(raised.value).__mro__]
    assert await connection.read_response(disable_decoding=True) == b"OK"
    await connection.disconnect(nowait=True)


CODES = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "UNBLOCKED"]


@pytest.mark.parametrize("code", CODES)
async def test_replies_that_mean_not_now_are_known_by_their_class_or_their_code(client: Client, code: str) -> None:
    """The libraries have classes for some, and cut the code off the text then."""
    error = client().connection_pool.make_connection()._parser.parse_error(f"{code} text")
    assert type(error).__name__ in _NOT_NOW_CLASSES or str(error).startswith(_NOT_NOW_CODES)


@pytest.mark.parametrize("text", ["ERR no", "WRONGTYPE no", "BUSYGROUP exists", "OOM no", "NOSCRIPT no", "NOPERM no"])
async def test_replies_that_mean_no_are_not_taken_for_not_now(client: Client, text: str) -> None:
    error = client().connection_pool.make_connection()._parser.parse_error(text)
    assert type(error).__name__ not in _NOT_NOW_CLASSES
    assert not str(error).startswith(_NOT_NOW_CODES)


async def test_an_unknown_script_is_known_by_its_class_or_its_code(client: Client) -> None:
    error = client().connection_pool.make_connection()._parser.parse_error("NOSCRIPT No matching script.")
    assert type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")


async def test_a_reply_to_authenticate_first_is_no_response_error(client: Client) -> None:
    """A link takes it for no answer, closes, and connects anew. It is an error of the library all the same."""
    error = client().connection_pool.make_connection()._parser.parse_error("NOAUTH Authentication required.")
    assert "ResponseError" not in [cls.__name__ for cls in type(error).__mro__]
    assert type(error).__module__.split(".")[0] in ("redis", "valkey")


# -- taking the transport over --------------------------------------------------------------------------


async def test_an_open_connection_has_a_stream_writer_and_a_parser_with_parse_error(client: Client) -> None:
    connection = client().connection_pool.make_connection()
    assert connection._writer is None
    await connection.connect()
    assert isinstance(connection._writer, asyncio.StreamWriter)
    assert isinstance(connection._writer.transport, asyncio.Transport)
    assert isinstance(connection._parser.parse_error("ERR no"), Exception)
    await connection.disconnect(nowait=True)


async def test_nothing_reads_from_a_connection_between_replies_so_its_transport_can_be_taken_over(
    client: Client, server: Server
) -> None:
    connection = await opened(client())
    await connection.send_packed_command(connection.pack_commands([("PING",)]), check_health=False)
    await connection.read_response(disable_decoding=True)
    transport = RedisTransport.take_over(connection)
    assert transport is not None
    assert connection._writer.transport.get_protocol() is transport
    server.answers[b"WRONG"] = b"-ERR no such thing\r\n"
    commands = hiredis.pack_command(("PING",)) + hiredis.pack_command(("WRONG",))
    ok, error = await transport.exchange(commands, 2, 5)
    assert ok == b"OK"
    assert "ResponseError" in [cls.__name__ for cls in type(error).__mro__]
    await connection.disconnect(nowait=True)
    await until(lambda: server.open == 0, "a closed connection")


async def test_a_link_sends_each_command_once_whichever_way_it_goes(client: Client, server: Server) -> None:
    """The first goes through the library, the next ones past it."""
    link = RedisLink(RedisServers(client()), 5)
    for _ in range(3):
        assert await link.call("PING") == b"OK"
    assert server.of(b"PING") == [(b"PING",)] * 3
    assert (link.number, server.accepted) == (1, 1)
    await link.close()
    await until(lambda: server.open == 0, "a closed connection")


async def test_a_push_message_is_no_reply(client: Client, server: Server) -> None:
    """redis-py 8 speaks RESP3 and asks for some."""
    link = RedisLink(RedisServers(client(protocol=3)), 5)
    await link.call("PING")
    server.answers[b"NEXT"] = b">2\r\n+MOVING\r\n+elsewhere\r\n+OK\r\n"
    assert await link.call("NEXT") == b"OK"
    await link.close()


# -- fakeredis ------------------------------------------------------------------------------------------


async def test_fakeredis_has_no_transport_and_works_through_its_own_connections() -> None:
    client: Any = FakeAsyncRedis()
    assert inspect.iscoroutinefunction(client.connection_pool.disconnect)
    assert not isinstance(getattr(client.connection_pool.make_connection(), "_writer", None), asyncio.StreamWriter)
    link = RedisLink(RedisServers(client), 5)
    await link.call("SET", "key", b"\xff")
    assert await link.call("GET", "key") == b"\xff"
    assert link._fast is None
    await link.close()
