"""The frozen values that a program receives: messages, results, and what the desk reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal

from ._errors import SwitchboardError
from ._triples import Triple

if TYPE_CHECKING:
    # Type checkers know it without the package; at run time a parameter needs no default.
    from typing_extensions import TypeVar

    D = TypeVar("D", default=Any)
else:
    from typing import TypeVar

    D = TypeVar("D")

State = Literal["connecting", "open", "closed"]
"""The state of a desk."""


@dataclass(frozen=True, slots=True)
class Message(Generic[D]):
    """An envelope that the broker has delivered."""

    triple: str
    channel: str
    topic: str
    subtopic: str
    data: D = field(repr=False)
    """`data`, or `message` if there is no `data`."""
    source: str | None
    user: str | None
    id: str | None
    retained: bool
    replayed: bool
    offset: int | None
    epoch: str | None
    envelope: Mapping[str, Any] = field(repr=False)
    """All fields, unknown ones included."""
    text: str = field(repr=False)
    """The text as received."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The broker's receipt of an event."""

    receivers: int
    duplicate: bool = False
    """The broker knows the id, and has not delivered the event again (`once`)."""
    offset: int | None = None
    epoch: str | None = None
    hint: str | None = None
    """A similar triple that is handled or subscribed to, if nothing names this one."""
    cluster: bool = False
    """`receivers` are those of one node of several."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[D]):
    """What one handler answered to a gathered request."""

    source: str | None
    """The handler's own word, because the broker adds none."""
    data: D = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A handler that did not answer a gathered request."""

    source: str | None
    code: str


@dataclass(frozen=True, slots=True)
class Gathered(Generic[D]):
    """The outcome of a gathered request."""

    answers: tuple[Answer[D], ...]
    """What arrived, parts of an answer (`progress`) included."""
    expected: int
    """How many handlers the broker asked."""
    failed: tuple[Failed, ...]


@dataclass(frozen=True, slots=True)
class Credentials:
    """The CTI login of the session's user."""

    username: str
    password: str = field(repr=False)
    extension: str
    adfs_username: str


@dataclass(frozen=True, slots=True)
class Application:
    """A registered application."""

    source: str
    user: str | None
    """None: a service."""
    since: datetime
    sessions: int
    state: Literal["active", "asleep", "away"]


@dataclass(frozen=True, slots=True)
class Session:
    """The session of a desk that is open."""

    id: str
    user: str | None
    server: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker's reply to a subscription."""

    id: str
    narrowed: bool
    """A right narrows the pattern."""
    hint: str | None = None
    """A part looks like another broker's wildcard."""
    recovered: bool | None = None
    recover_reason: str | None = None
    replayed: int | None = None
    epoch: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Last:
    """`recover`: begin with the last events that are kept."""

    events: int


@dataclass(frozen=True, slots=True)
class After:
    """`recover`: begin with the event after this one, of an earlier message's `epoch` and `offset`."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Will:
    """The event that the broker publishes if this program dies."""

    triple: str
    data: object = field(default=None, repr=False)
    retain: bool = False
    user: str | None = None
    """A service has to name one on a channel of its users."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """The desk's state, and why it is not open."""

    state: State
    problem: SwitchboardError | None


@dataclass(frozen=True, slots=True)
class Back:
    """What a reconnection means."""

    how: Literal["resumed", "recovered", "lost"]
    """`resumed`: nothing was missed or received twice. `recovered`: the session is another, and every subscription has
    gone on after its last event. `lost`: events may be missing."""
    since: datetime
    """Since when events may be missing, if they are."""
    patterns: tuple[str, ...]
    """The subscriptions that may have missed events."""


@dataclass(frozen=True, slots=True)
class Lagging:
    """This program takes messages more slowly than they arrive: its queue at the broker."""

    messages: int
    messages_max: int
    bytes: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """The broker dropped events of a `drop-oldest` channel that this program did not take in time."""

    count: int


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= 4000 else Decimal(text)


def read(text: str) -> Message[Any]:
    """Reads an envelope. Raises ValueError if the text is not one."""
    try:
        envelope = json.loads(text)
    except ValueError:
        # Python refuses integers of more than 4,300 digits, which are valid JSON.
        envelope = json.loads(text, parse_int=_integer)
    if not isinstance(envelope, dict):
        raise ValueError("not an object")
    triple = Triple(*(part if isinstance(part := envelope.get(key), str) else "" for key in Triple._fields))
    offset = envelope.get("offset")
    return Message(
        triple=str(triple),
        channel=triple.channel,
        topic=triple.topic,
        subtopic=triple.subtopic,
        data=envelope["data"] if "data" in envelope else envelope.get("message"),
        source=string(envelope.get("source")),
        user=string(envelope.get("user")),
        id=string(envelope.get("id")),
        retained=envelope.get("retained") is True,
        replayed=envelope.get("replayed") is True,
        offset=offset if isinstance(offset, int) else None,
        epoch=string(envelope.get("epoch")),
        envelope=MappingProxyType(envelope),
        text=text,
    )


def write(envelope: Mapping[str, object]) -> tuple[str, int]:
    """Returns an envelope as JSON, and its size in bytes. Raises SwitchboardError if a payload cannot be written."""
    try:
        text = json.dumps(envelope, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text, len(text.encode())
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but an escape.
        text = json.dumps(envelope, allow_nan=False, separators=(",", ":"))
        return text, len(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise SwitchboardError("INVALID_ENVELOPE", f"the payload cannot be written as JSON: {error}") from None


def string(value: object) -> str | None:
    """Returns a string, and None for any other JSON."""
    return value if isinstance(value, str) else None


def integer(value: object) -> int | None:
    """Returns an integer, and None for any other JSON."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def fields(value: object) -> dict[str, Any]:
    """Returns an object's fields, and none for any other JSON."""
    return value if isinstance(value, dict) else {}


def failure(message: Message[Any]) -> SwitchboardError | None:
    """Returns the error of an answer with `Success:false`."""
    data = fields(message.data)
    if data.get("Success") is not False:
        return None
    code = string(data.get("ErrorCode")) or "HANDLER_FAILED"
    text = string(data.get("ErrorMessage")) or "the answer gives no reason"
    return SwitchboardError(code, text, data=message.data, in_reply_to=string(message.envelope.get("inReplyTo")))
