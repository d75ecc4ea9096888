"""`Track`: how far a subscription is in the log of a channel with history."""

from __future__ import annotations

from typing import Any

from ._frames import After, Last, Message


class Track:
    """See the module.

    What has arrived is in this process, so a new session goes on after the last event that arrived.
    """

    def __init__(self, start: After | Last | None) -> None:
        self._start = start
        self._has_log = False
        self._at = start if isinstance(start, After) else None
        self._awaits_replay = start is not None
        # The last event of the session before.
        self._had: After | None = None

    def again(self) -> After | Last | None:
        """Returns where to go on in a new session."""
        if not self._has_log:
            return self._start
        return self._at or self._start

    def ask(self, recover: After | Last | None) -> None:
        """A Subscribe is sent, with `recover` or without."""
        self._awaits_replay = recover is not None
        self._had = self._at if self._has_log else None

    def begin(self, epoch: str | None, offset: int | None, replayed: int | None) -> None:
        """The reply to Subscribe: where the log is, and how many events are replayed up to there, if they can be."""
        self._awaits_replay = False
        self._has_log = epoch is not None and offset is not None
        if not replayed:
            self._at = After(epoch, offset) if epoch is not None and offset is not None else None
        if self._at is not None:
            self._start = None

    def takes_live(self, message: Message[Any], foreign: bool) -> bool:
        """Returns whether a live event is for this subscription now. `foreign`: it may be of another log."""
        if message.epoch is None or message.offset is None:
            return True
        if self._awaits_replay:
            # The replay will have it.
            return False
        if self._has_log and not foreign:
            self._move(message.epoch, message.offset)
        return True

    def takes_replayed(self, message: Message[Any]) -> bool:
        """Returns whether a replayed event is new to this subscription."""
        if message.epoch is None or message.offset is None:
            return True
        if self._at is not None and self._at.epoch == message.epoch and message.offset <= self._at.offset:
            return False
        self._move(message.epoch, message.offset)
        return True

    def takes_retained(self, message: Message[Any]) -> bool:
        """Returns whether a retained value is new to this subscription: it did not arrive in the session before."""
        had = self._had
        return had is None or message.offset is None or message.epoch != had.epoch or message.offset > had.offset

    def _move(self, epoch: str, offset: int) -> None:
        self._at = After(epoch, offset)
        self._start = None
