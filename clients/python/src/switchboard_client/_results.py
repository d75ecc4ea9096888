"""Reads the broker's replies into results."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, cast

from ._frames import Application, Credentials, Failed, Receipt, fields, integer, string


def receipt(data: dict[str, Any]) -> Receipt:
    """Reads `data` of `Broker/Message/Receipt`."""
    return Receipt(
        receivers=integer(data.get("Receivers")) or 0,
        duplicate=data.get("Duplicate") is True,
        offset=integer(data.get("Offset")),
        epoch=string(data.get("Epoch")),
        hint=string(data.get("Hint")),
        cluster=data.get("Cluster") is True,
    )


def failed(data: dict[str, Any]) -> list[Failed]:
    """Reads the handlers that did not answer a gather."""
    handlers = data.get("Failed")
    rows = [fields(it) for it in handlers] if isinstance(handlers, list) else []
    return [Failed(string(row.get("Source")), string(row.get("ErrorCode")) or "HANDLER_FAILED") for row in rows]


def credentials(data: object) -> Credentials:
    """Reads the answer to FetchCredentials."""
    row = fields(data)
    keys = ("Username", "Password", "Extension", "ADFSUsername")
    return Credentials(*(string(row.get(key)) or "" for key in keys))


def applications(data: dict[str, Any]) -> tuple[Application, ...]:
    """Reads the reply to `Application/List`."""
    rows = data.get("Applications")
    return tuple(_application(fields(row)) for row in rows) if isinstance(rows, list) else ()


def _application(row: dict[str, Any]) -> Application:
    state = row.get("State")
    try:
        since = datetime.fromisoformat(str(row.get("Since")))
    except ValueError:
        since = datetime.fromtimestamp(0, UTC)
    return Application(
        source=string(row.get("Source")) or "",
        user=string(row.get("User")),
        since=since,
        sessions=integer(row.get("Sessions")) or 0,
        state=cast(Literal["active", "asleep", "away"], state if state in ("asleep", "away") else "active"),
    )
