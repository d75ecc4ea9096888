"""`Link`: a registered connection, and one attempt to make one. Every wait has a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ._catalogue import Reconnect, after_close
from ._diagnosis import diagnose
from ._errors import SwitchboardError
from ._frames import Session, failure, fields, integer, read, string, write
from ._settings import LOOPBACK, Settings, Why

PROTOCOL: Final = 1
TOKEN_MAX = 30.0
"""How long, in seconds, a token provider may take."""
OPEN_MAX = 10.0
REGISTER_MAX = 10.0
CLOSE_MAX = 2.0
MESSAGE_BYTES_MAX = 64 << 20
"""The largest message that is received: far more than a broker that is configured with sense lets pass."""
LEAVE: Final = 1000
"""The client leaves: the session ends."""
GIVE_UP: Final = 4000
"""The client gives the connection up, and returns."""

# websockets writes whole messages to its logger at the level DEBUG, and with them tokens.
_QUIET = logging.getLogger("switchboard_client.websockets")
_QUIET.setLevel(logging.WARNING)


class Ended(Exception):
    """Why there is no connection, and what to do about it."""

    def __init__(self, error: SwitchboardError, reconnect: Reconnect, at: float, code: int | None) -> None:
        super().__init__(error)
        self.error = error
        self.reconnect = reconnect
        # When it ended, by the clock of the event loop.
        self.at = at
        # The broker's Close code.
        self.code = code


@dataclass(frozen=True, slots=True)
class Link:
    """A registered connection."""

    socket: ClientConnection
    session: Session
    message_bytes_max: int
    resume_token: str | None = field(repr=False)
    taken: int | None
    """If the session continues: how many of its messages the broker has taken."""


async def close(socket: ClientConnection, code: int) -> None:
    """Closes a connection, with a time limit."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_MAX):
            await socket.close(code)


async def open_link(settings: Settings, url: str, why: Why, resume: object) -> Link:
    """Connects and registers, once. Raises `Ended`."""
    try:
        async with asyncio.timeout(TOKEN_MAX):
            # Before the socket is opened: the broker gives a new connection 10 s to register.
            token = await settings.ask_token(why)
    except Exception as error:
        cause = "did not answer in time" if isinstance(error, TimeoutError) else f"raised {type(error).__name__}"
        problem = SwitchboardError("TOKEN_UNAVAILABLE", f"the token provider {cause}")
        problem.__cause__ = error
        raise ended(problem, Reconnect.BACK_OFF) from None
    socket = await _open(settings, url)
    try:
        async with asyncio.timeout(REGISTER_MAX):
            return await _register(settings, socket, token, resume)
    except TimeoutError:
        await close(socket, GIVE_UP)
        raise ended(SwitchboardError("BROKER_DOWN", "no reply to Register in time"), Reconnect.BACK_OFF) from None
    except BaseException:
        await close(socket, GIVE_UP)
        raise


async def _open(settings: Settings, url: str) -> ClientConnection:
    parts = urlsplit(url)
    options: dict[str, Any] = {}
    if parts.scheme == "wss":
        options["ssl"] = settings.ssl or ssl.create_default_context()
    try:
        return await connect(
            url,
            # The proxy of the environment is for other hosts.
            proxy=None if parts.hostname in LOOPBACK else True,
            compression=None,
            open_timeout=OPEN_MAX,
            close_timeout=CLOSE_MAX,
            max_size=MESSAGE_BYTES_MAX,
            logger=_QUIET,
            **options,
        )
    except asyncio.CancelledError:
        raise
    except Exception as error:
        problem = await diagnose(url, settings.ssl, error)
        problem.__cause__ = error
        raise ended(problem, Reconnect.BACK_OFF) from None


async def _register(settings: Settings, socket: ClientConnection, token: str | None, resume: object) -> Link:
    data: dict[str, object] = {"resume": resume}
    if token is not None:
        data["token"] = token
    if settings.user is not None:
        data["user"] = settings.user
    if (will := settings.will) is not None:
        channel, topic, subtopic = will.triple.split("/")
        envelope: dict[str, object] = {"channel": channel, "topic": topic, "subtopic": subtopic, "data": will.data}
        if will.retain:
            envelope["retain"] = True
        if will.user is not None:
            envelope["user"] = will.user
        data["will"] = envelope
    register = {"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": settings.source}
    text, _ = write({**register, "data": data})
    try:
        await socket.send(text)
        while True:
            message = read(str(await socket.recv()))
            if message.triple == "Broker/Application/Register":
                break
    except ConnectionClosed as error:
        raise closed(error) from None
    except ValueError:
        problem = SwitchboardError("NOT_SWITCHBOARD", "the reply to Register cannot be read")
        raise ended(problem, Reconnect.BACK_OFF) from None
    if (refusal := failure(message)) is not None:
        raise refused(refusal)
    return _link(socket, fields(message.data))


def _link(socket: ClientConnection, data: dict[str, Any]) -> Link:
    if data.get("Protocol") != PROTOCOL:
        problem = SwitchboardError("VERSION", f"the broker speaks version {data.get('Protocol')!r}, not {PROTOCOL}")
        raise ended(problem, Reconnect.BACK_OFF)
    session = Session(str(data.get("SessionId", "")), string(data.get("User")), str(data.get("Server", "")))
    return Link(
        socket,
        session,
        integer(data.get("MaxMessageBytes")) or (1 << 20),
        string(data.get("ResumeToken")),
        integer(data.get("Received")) if data.get("Resumed") is True else None,
    )


def ended(error: SwitchboardError, reconnect: Reconnect, code: int | None = None) -> Ended:
    """Returns the end of a connection, now."""
    return Ended(error, reconnect, asyncio.get_running_loop().time(), code)


def refused(refusal: SwitchboardError) -> Ended:
    """Returns the end of a connection whose Register was refused: that of the Close frame that follows."""
    # RATE_LIMITED takes the place of UNAUTHENTICATED. A valid token always passes.
    if refusal.code in ("UNAUTHENTICATED", "RATE_LIMITED"):
        return ended(refusal, Reconnect.NEW_TOKEN, 4401)
    return ended(refusal, Reconnect.BACK_OFF if refusal.retryable else Reconnect.STOP)


def closed(error: ConnectionClosed) -> Ended:
    """Returns the end of a connection that was closed, or lost."""
    frame = error.rcvd
    if frame is None:
        return ended(SwitchboardError("AWAY", "the connection was lost"), Reconnect.BACK_OFF)
    code = int(frame.code)
    words = f"the broker closed the connection with {code}: {frame.reason or 'no reason given'}"
    names = {4401: "UNAUTHENTICATED", 4403: "FORBIDDEN", 4409: "REPLACED"}
    if code == 4410:
        return ended(SwitchboardError("KICKED", frame.reason or "closed by an operator"), after_close(code), code)
    return ended(SwitchboardError(names.get(code, "AWAY"), words), after_close(code), code)
