"""`Outbox`: the messages to the broker, in order. In a resumable session it keeps what was written until the broker
is known to have taken it.

The broker says in the reply to a resume how many messages of the session it has taken. So the outbox counts, too.
Within the client a message has another number, its sequence, which the answer to it recalls: the answer shows that
the broker has taken the message and all before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from enum import Enum

MESSAGES_MAX = 4096
"""How many messages may be kept and waiting before further operations wait."""
BYTES_MAX = 8 << 20
"""The same, in bytes."""
AWAY_MESSAGES_MAX = 1000
"""How many messages are held while the desk is not open (`when_away="keep"`)."""
AWAY_BYTES_MAX = 1 << 20
"""The same, in bytes."""
ASK_AFTER = 256
"""How many messages are written before the broker is asked whether it has taken them."""
ASK_WITHIN = 5.0
"""How long, in seconds, a message waits for an answer that shows that it was taken, before the broker is asked."""


class Kind(Enum):
    """What a message is, which decides on its fate when its session ends."""

    EVENT = "event"
    """If it was not written, the next session sends it."""
    REQUEST = "request"
    """As an event."""
    OF_SESSION = "of session"
    """A command, or the answer to a request: of no use without its session."""
    UPKEEP = "upkeep"
    """Keeps the session alive. It is not sent again, not even in its session, and its text is dropped when written."""


class Entry:
    """A message in the outbox."""

    __slots__ = ("kind", "sequence", "silent", "size", "text", "written")

    def __init__(self, kind: Kind, text: str, size: int, *, silent: bool = False) -> None:
        self.kind = kind
        # Nobody waits for its receipt.
        self.silent = silent
        self.text: str | None = text
        self.size = size
        self.sequence = 0
        self.written = False


class Outbox:
    """See the module."""

    def __init__(self) -> None:
        self._waiting: deque[Entry] = deque()
        self._sent: deque[Entry] = deque()
        self._before = 0
        self._bytes = 0
        self._last = 0
        self._keeps = False
        self._unproved = 0
        self._unproved_since = 0.0
        self._asking = False
        # The sequence of the last silent message that was written, and up to which the broker has taken everything.
        self._silent = 0
        self._proved = 0
        self._added = asyncio.Event()
        self._relieved = asyncio.Event()

    def push(self, entry: Entry) -> None:
        """Adds a message."""
        self._last += 1
        entry.sequence = self._last
        self._bytes += entry.size
        self._waiting.append(entry)
        self._added.set()

    def withdraw(self, entry: Entry) -> bool:
        """Takes a message back that was not written yet. Returns whether it could be."""
        if entry.written or entry not in self._waiting:
            return False
        # Now, and not when its turn comes: it counts against the bounds until then.
        self._waiting.remove(entry)
        self._forget(entry)
        return True

    def take(self, now: float) -> str | None:
        """Returns the next message to write, which counts as written from now on."""
        if not self._waiting:
            self._added.clear()
            return None
        entry = self._waiting.popleft()
        entry.written = True
        if entry.silent:
            self._silent = entry.sequence
        text = entry.text
        if not self._keeps:
            self._forget(entry)
            return text
        if entry.kind is Kind.UPKEEP:
            entry.text = None
        else:
            if self._unproved == 0:
                self._unproved_since = now
            self._unproved += 1
        self._sent.append(entry)
        return text

    async def added(self) -> None:
        """Waits until there may be a message to write."""
        await self._added.wait()

    async def room(self) -> None:
        """Waits until there is room for a further message."""
        while len(self._sent) + len(self._waiting) >= MESSAGES_MAX or self._bytes >= BYTES_MAX:
            self._relieved.clear()
            await self._relieved.wait()

    def has_room_away(self) -> bool:
        """Returns whether there is room while the desk is not open."""
        return len(self._waiting) < AWAY_MESSAGES_MAX and sum(it.size for it in self._waiting) < AWAY_BYTES_MAX

    def prove(self, now: float, sequence: int) -> None:
        """The broker has taken the message of this sequence, and all before it."""
        self._proved = max(self._proved, sequence)
        proved = 0
        while self._sent and self._sent[0].sequence <= sequence:
            proved += self._drop_sent().kind is not Kind.UPKEEP
        if proved:
            self._unproved = max(self._unproved - proved, 0)
            self._unproved_since = now

    def must_ask(self, now: float) -> bool:
        """Returns whether it is time to ask the broker what it has taken."""
        if self._asking or self._unproved == 0:
            return False
        return self._unproved >= ASK_AFTER or self._unproved_since + ASK_WITHIN <= now

    def set_asking(self, asking: bool) -> None:
        """Notes whether the broker was asked, and has not answered yet."""
        self._asking = asking

    def begin(self, keeps: bool) -> None:
        """A new session begins. `keeps`: it is resumable."""
        self._keeps = keeps

    def go_on(self, taken: int) -> bool:
        """The session continues after its `taken`th message: what followed is sent again.

        Returns whether the broker's count fits.
        """
        sound = self._before <= taken <= self._before + len(self._sent)
        while self._sent and self._before < taken:
            self._proved = max(self._proved, self._drop_sent().sequence)
        again = [it for it in (*self._sent, *self._waiting) if it.kind is not Kind.UPKEEP]
        self._restart(again)
        self._before = taken
        return sound

    def end(self) -> bool:
        """The session has ended. Keeps what the next one sends: events and requests that were not written.

        Returns whether it is unknown if a silent message was taken.
        """
        doubtful = self._silent > self._proved
        self._restart([it for it in self._waiting if it.kind in (Kind.EVENT, Kind.REQUEST)])
        self._before = self._silent = 0
        self._keeps = False
        return doubtful

    def drain(self) -> list[Entry]:
        """Takes all messages that were not written."""
        entries = list(self._waiting)
        self._waiting.clear()
        self._bytes -= sum(it.size for it in entries)
        return entries

    def _restart(self, entries: Iterable[Entry]) -> None:
        self._sent.clear()
        self._waiting = deque(entries)
        self._bytes = sum(it.size for it in self._waiting)
        self._unproved, self._asking = 0, False
        self._added.set()
        self._relieved.set()

    def _drop_sent(self) -> Entry:
        entry = self._sent.popleft()
        self._before += 1
        self._forget(entry)
        return entry

    def _forget(self, entry: Entry) -> None:
        self._bytes -= entry.size
        entry.text = None
        self._relieved.set()
