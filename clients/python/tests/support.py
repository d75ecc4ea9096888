"""What the tests share: a real broker, a proxy that cuts connections, a broker that the test plays."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from websockets.asyncio.server import ServerConnection, serve

DEADLINE = 20.0
BINARY = os.environ.get("SWITCHBOARD", "switchboard")

P = ParamSpec("P")
T = TypeVar("T")


def scenario(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test in an event loop of its own, with a deadline."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(2 * DEADLINE):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


async def until(condition: Callable[[], object], what: str = "the effect") -> None:
    """Waits until something is true."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"no sign of {what}") from None


async def soon(awaitable: Awaitable[T]) -> T:
    """Awaits something, with a deadline."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


class Broker:
    """The real broker, in a process and a folder of its own."""

    def __init__(self, folder: Path, config: str | None) -> None:
        self.folder = folder
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None
        if config is not None:
            (folder / "switchboard.toml").write_text(config)

    async def start(self, listen: str = "127.0.0.1:0") -> None:
        """Starts it, and waits until it listens."""
        command = [BINARY, "serve", "--listen", listen, "--data-dir", str(self.folder / "data")]
        environment = dict(os.environ)
        if (self.folder / "switchboard.toml").exists():
            command += ["--config", str(self.folder / "switchboard.toml")]
        else:
            # Brokers of other tests would have its default port.
            environment["SWITCHBOARD__ADMIN__LISTEN"] = "[]"
        with (self.folder / "log").open("a") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment
            )
        assert self._process.stdout is not None
        line = (await soon(self._process.stdout.readline())).decode().strip()
        assert line.startswith("listening on "), (self.folder / "log").read_text()
        self.url = line.removeprefix("listening on ")

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.removesuffix("/ws").rsplit(":", 1)[1])

    async def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await soon(self._process.wait())

    async def restart(self) -> None:
        """Kills it, and starts it again on the same port."""
        port = self.port
        await self.kill()
        await self.start(f"127.0.0.1:{port}")

    async def run(self, *arguments: str, stdin: bytes = b"") -> None:
        """Runs a command of the binary with the broker's folder."""
        process = await asyncio.create_subprocess_exec(
            BINARY,
            *arguments,
            "--data-dir",
            str(self.folder / "data"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await soon(process.communicate(stdin))
        assert process.returncode == 0, errors.decode()


@asynccontextmanager
async def broker(config: str | None = None) -> AsyncIterator[Broker]:
    """A running broker, in open mode without a configuration."""
    folder = Path(tempfile.mkdtemp())
    running = Broker(folder, config)
    try:
        await running.start()
        yield running
    finally:
        await running.kill()
        shutil.rmtree(folder)


class Proxy:
    """Passes bytes on, until it cuts."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, back}
        self._writers |= both
        pipes = [asyncio.create_task(_pipe(reader, back)), asyncio.create_task(_pipe(there, writer))]
        await asyncio.wait(pipes, return_when=asyncio.FIRST_COMPLETED)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)
        for one in both:
            one.transport.abort()
        self._writers -= both

    def cut(self) -> None:
        """Breaks all connections, without a Close frame."""
        for writer in self._writers:
            writer.transport.abort()

    def stop(self) -> None:
        """Ends it."""
        if self._server is not None:
            self._server.close()
        self.cut()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """A running proxy to this port."""
    running = Proxy(port)
    await running.start()
    try:
        yield running
    finally:
        running.stop()
        # Its tasks end with their connections.
        await until(lambda: not running._writers, "the end of the proxy")


class Peer:
    """The broker's end of a connection that the test plays."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket

    async def next(self) -> dict[str, Any]:
        """Returns the client's next envelope."""
        envelope = json.loads(await soon(self.socket.recv()))
        assert isinstance(envelope, dict)
        return envelope

    async def expect(self, triple: str) -> dict[str, Any]:
        """Returns the next envelope on a triple, and leaves out those that only keep a session alive."""
        while True:
            envelope = await self.next()
            found = f"{envelope['channel']}/{envelope['topic']}/{envelope['subtopic']}"
            if found == triple:
                return envelope
            assert found in ("Broker/Connection/Acknowledge", "Broker/Connection/Ping"), envelope

    async def say(self, triple: str, **fields: object) -> None:
        """Sends an envelope."""
        channel, topic, subtopic = triple.split("/")
        await self.socket.send(json.dumps({"channel": channel, "topic": topic, "subtopic": subtopic, **fields}))

    async def answer(self, envelope: dict[str, Any], **data: object) -> None:
        """Answers an envelope with success."""
        triple = "/".join(envelope[part] for part in ("channel", "topic", "subtopic"))
        more = {"inReplyTo": envelope["id"]} if "id" in envelope else {}
        await self.say(triple, **more, data={"Success": True, "ErrorMessage": None, **data})

    async def register(self, **data: object) -> dict[str, Any]:
        """Answers Register, and returns it."""
        register = await self.next()
        assert register["subtopic"] == "Register", register
        session = {"SessionId": "session-1", "User": "local", "Protocol": 1, "Server": "fake/1"}
        await self.answer(register, **{**session, "HeartbeatSeconds": 25, "MaxMessageBytes": 2048, **data})
        return register

    async def close(self, code: int, reason: str = "") -> None:
        """Closes the connection."""
        await self.socket.close(code, reason)

    def drop(self) -> None:
        """Breaks the connection, without a Close frame."""
        self.socket.transport.abort()


class FakeBroker:
    """Hands each connection to the test."""

    def __init__(self) -> None:
        self.url = ""
        self._peers: asyncio.Queue[Peer] = asyncio.Queue(64)

    async def connection(self) -> Peer:
        """Returns the next connection, not yet registered."""
        return await soon(self._peers.get())

    async def session(self, **data: object) -> tuple[Peer, dict[str, Any]]:
        """Returns the next connection, registered, and its Register."""
        peer = await self.connection()
        return peer, await peer.register(**data)

    async def serve(self, socket: ServerConnection) -> None:
        """Keeps a connection until it is closed."""
        self._peers.put_nowait(Peer(socket))
        await socket.wait_closed()


@asynccontextmanager
async def fake_broker() -> AsyncIterator[FakeBroker]:
    """A broker that the test plays."""
    fake = FakeBroker()
    async with serve(fake.serve, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        fake.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"
        yield fake
