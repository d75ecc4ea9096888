"""The broker's codes, and what a client does after a close. Printed from `crates/wire/src/error.rs`."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, TypeAlias

BrokerCode: TypeAlias = Literal[
    "INVALID_JSON",
    "INVALID_ENVELOPE",
    "NOT_REGISTERED",
    "ALREADY_REGISTERED",
    "UNAUTHENTICATED",
    "FORBIDDEN",
    "SOURCE_MISMATCH",
    "SOURCE_IN_USE",
    "USER_REQUIRED",
    "RESERVED_CHANNEL",
    "UNKNOWN_COMMAND",
    "NO_SUCH_SUBSCRIPTION",
    "NO_SUCH_REQUEST",
    "NO_HANDLER",
    "HANDLER_GONE",
    "REQUEST_TIMEOUT",
    "REQUEST_CANCELLED",
    "TOO_LARGE",
    "TOO_MANY_SUBSCRIPTIONS",
    "TOO_MANY_REQUESTS",
    "RATE_LIMITED",
    "UPSTREAM_UNAVAILABLE",
    "UPSTREAM_REJECTED",
    "CREDENTIALS_NOT_FOUND",
    "TOO_MANY_SESSIONS",
    "STORAGE_UNAVAILABLE",
    "INTERNAL",
]
"""The codes of the broker."""

RETRYABLE: Final[dict[str, bool]] = {
    "INVALID_JSON": False,
    "INVALID_ENVELOPE": False,
    "NOT_REGISTERED": False,
    "ALREADY_REGISTERED": False,
    "UNAUTHENTICATED": False,
    "FORBIDDEN": False,
    "SOURCE_MISMATCH": False,
    "SOURCE_IN_USE": True,
    "USER_REQUIRED": False,
    "RESERVED_CHANNEL": False,
    "UNKNOWN_COMMAND": False,
    "NO_SUCH_SUBSCRIPTION": False,
    "NO_SUCH_REQUEST": False,
    "NO_HANDLER": True,
    "HANDLER_GONE": True,
    "REQUEST_TIMEOUT": True,
    "REQUEST_CANCELLED": False,
    "TOO_LARGE": False,
    "TOO_MANY_SUBSCRIPTIONS": False,
    "TOO_MANY_REQUESTS": True,
    "RATE_LIMITED": True,
    "UPSTREAM_UNAVAILABLE": True,
    "UPSTREAM_REJECTED": False,
    "CREDENTIALS_NOT_FOUND": False,
    "TOO_MANY_SESSIONS": True,
    "STORAGE_UNAVAILABLE": True,
    "INTERNAL": True,
}
"""Whether the same envelope may succeed later without any change."""


class Reconnect(Enum):
    """What a client does when its connection has ended."""

    BACK_OFF = "back off"
    DROP_MESSAGE = "drop message"
    AFTER_DELAY = "after delay"
    NEW_TOKEN = "new token"
    STOP = "stop"


_AFTER_CLOSE: Final = {
    1001: Reconnect.BACK_OFF,
    1002: Reconnect.DROP_MESSAGE,
    1007: Reconnect.DROP_MESSAGE,
    1008: Reconnect.BACK_OFF,
    1009: Reconnect.DROP_MESSAGE,
    1012: Reconnect.AFTER_DELAY,
    4401: Reconnect.NEW_TOKEN,
    4403: Reconnect.STOP,
    4404: Reconnect.BACK_OFF,
    4406: Reconnect.BACK_OFF,
    4408: Reconnect.BACK_OFF,
    4409: Reconnect.STOP,
    4410: Reconnect.STOP,
    4413: Reconnect.BACK_OFF,
}


def after_close(code: int) -> Reconnect:
    """Returns what a client does after a close with this code."""
    return _AFTER_CLOSE.get(code, Reconnect.BACK_OFF)
