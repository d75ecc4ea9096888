"""Finds out why a broker cannot be reached: by the refusal of the handshake, or by `GET /`."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Final
from urllib.parse import urlsplit

from websockets.exceptions import InvalidHandshake, InvalidStatus

from ._errors import SwitchboardError

REQUEST_MAX = 5.0
"""How long, in seconds, `GET /` may take."""
REPLY_BYTES_MAX = 64 << 10
LINE_MAX = 300
"""How much of another program's reply is shown, in characters."""

_BY_STATUS: Final = {421: "HOST_REFUSED", 503: "BUSY"}


async def diagnose(url: str, tls: ssl.SSLContext | None, error: Exception) -> SwitchboardError:
    """Returns why an attempt to open a WebSocket has failed."""
    if isinstance(error, ssl.SSLError):
        return SwitchboardError("BROKER_DOWN", f"no encrypted connection: {error.reason or 'TLS failed'}")
    if isinstance(error, InvalidStatus):
        status, line = error.response.status_code, _line(error.response.body)
        if status == 403:
            code = "ORIGIN_REFUSED" if "origin" in line.lower() else "NEIGHBOUR_REFUSED"
            return SwitchboardError(code, line)
        if status in _BY_STATUS:
            return SwitchboardError(_BY_STATUS[status], line)
        return await _ask(url, tls, f"the handshake was refused with {status}: {line}")
    if isinstance(error, InvalidHandshake | TimeoutError):
        return await _ask(url, tls, "the handshake was not answered as a WebSocket's")
    if isinstance(error, OSError):
        return SwitchboardError("BROKER_DOWN", f"no connection: {error.strerror or type(error).__name__}")
    return SwitchboardError("BROKER_DOWN", f"no connection: {type(error).__name__}")


async def _ask(url: str, tls: ssl.SSLContext | None, why: str) -> SwitchboardError:
    try:
        async with asyncio.timeout(REQUEST_MAX):
            status, body = await _get(url, tls)
    except (OSError, ValueError, TimeoutError, EOFError):
        return SwitchboardError("BROKER_DOWN", f"{why}; GET / is not answered either")
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict) and answer.get("server") == "switchboard":
        return SwitchboardError("UPGRADE_BLOCKED", f"{why}; GET / reaches the broker")
    if status in _BY_STATUS:
        return SwitchboardError(_BY_STATUS[status], _line(body))
    return SwitchboardError("NOT_SWITCHBOARD", f"{why}; GET / is answered by something else")


async def _get(url: str, tls: ssl.SSLContext | None) -> tuple[int, bytes]:
    """Returns the status and the body of `GET /`."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    context = (tls or ssl.create_default_context()) if secure else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        host = parts.netloc
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        reply = bytearray()
        while len(reply) < REPLY_BYTES_MAX and (more := await reader.read(4096)):
            reply += more
    finally:
        writer.close()
    head, _, body = bytes(reply).partition(b"\r\n\r\n")
    version, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
    if not version.startswith(b"HTTP/"):
        raise ValueError("not HTTP")
    return int(rest[:3]), body


def _line(body: bytes | bytearray | None) -> str:
    """Returns the first line of a refusal. The page of another server is not for a terminal."""
    first = bytes(body or b"").decode("utf-8", "replace").partition("\n")[0]
    return "".join(it for it in first if it.isprintable())[:LINE_MAX] or "no reason given"
