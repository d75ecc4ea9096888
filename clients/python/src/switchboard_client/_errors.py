"""`SwitchboardError`, the one exception of this package, and the codes that the client itself makes."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ._catalogue import RETRYABLE, BrokerCode

ClientCode: TypeAlias = Literal[
    "AWAY", "LOST", "CLOSED", "REPLACED", "KICKED", "OVERFLOW", "TOKEN_UNAVAILABLE", "HANDLER_FAILED"
]
"""The codes of the client itself.

| code | meaning |
|---|---|
| `AWAY` | not open, and `when_away` is `"fail"`; as `problem`: the connection was lost |
| `LOST` | sent, but the session could not be resumed: the outcome is unknown |
| `CLOSED` | the desk was closed by the program, or by the third 1002, 1007 or 1009 within a minute |
| `REPLACED`, `KICKED` | the desk was closed by another connection, an operator |
| `OVERFLOW` | the buffer of an iterator or a listener, or of `when_away="keep"`, is full |
| `TOKEN_UNAVAILABLE` | the token provider failed; retried with back-off |
| `HANDLER_FAILED` | an answer with `Success:false` and no code |
"""

ConnectionCode: TypeAlias = Literal[
    "BAD_ADDRESS",
    "BROKER_DOWN",
    "NOT_SWITCHBOARD",
    "HOST_REFUSED",
    "ORIGIN_REFUSED",
    "NEIGHBOUR_REFUSED",
    "BUSY",
    "UPGRADE_BLOCKED",
    "VERSION",
]
"""The reasons why a process cannot connect. Each has a `cure` for a person."""

_CURES: Final[dict[str, str]] = {
    "BAD_ADDRESS": "Write the address of a broker, such as ws://127.0.0.1:7420/ws.",
    "BROKER_DOWN": "Start the broker, or correct the address.",
    "NOT_SWITCHBOARD": "Another program answers at this address. Correct the address, or stop that program.",
    "HOST_REFUSED": "List the host name in http.allowed_hosts of the broker, or connect to an IP address.",
    "ORIGIN_REFUSED": "Something between this program and the broker adds an Origin. List it in http.allowed_origins.",
    "NEIGHBOUR_REFUSED": "Run this program as the broker's operating-system user, or list its user in http.os_users.",
    "BUSY": "Wait, or raise the broker's limit that the message names.",
    "UPGRADE_BLOCKED": "A proxy between this program and the broker blocks WebSockets. Let it pass them.",
    "VERSION": "Update this package, or the broker, so that both speak the same version of the protocol.",
}

_OWN_RETRYABLE: Final = frozenset(
    {"AWAY", "OVERFLOW", "TOKEN_UNAVAILABLE", "BROKER_DOWN", "NOT_SWITCHBOARD", "BUSY", "UPGRADE_BLOCKED"}
)


class SwitchboardError(Exception):
    """The reason why an operation failed, or why the desk is not open.

    A handler raises it to refuse a request: the requester gets its code and message, and the keys of `data` if that
    is a dict.
    """

    code: str
    """A `BrokerCode`, `ClientCode` or `ConnectionCode`, or the code of another application's handler."""
    message: str
    """What went wrong, in words. The broker's messages never quote a payload or a token."""
    retryable: bool
    """Whether the same may succeed later without any change."""
    in_reply_to: str | None
    """The id of the envelope that was refused."""
    data: object
    """Of a refused request: the whole answer. It is never printed."""
    cure: str | None
    """Of a `ConnectionCode`: the one thing to do, in words for a person."""

    def __init__(
        self,
        code: BrokerCode | ClientCode | ConnectionCode | str,
        message: str,
        *,
        data: object = None,
        in_reply_to: str | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retryable = RETRYABLE.get(code, code in _OWN_RETRYABLE)
        self.in_reply_to = in_reply_to
        self.data = data
        self.cure = _CURES.get(code)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def __repr__(self) -> str:
        return f"SwitchboardError({self.code!r}, {self.message!r})"
