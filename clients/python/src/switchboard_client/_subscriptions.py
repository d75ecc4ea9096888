"""`Subscriptions`: which subscription of this desk gets an event or a request.

The broker delivers an event once per session, however many of the session's patterns match. So the patterns are here,
too. The events of a replay follow the reply to the Subscribe that asked for it, and the broker reads no other command
until they are sent. So they are for the subscription that was confirmed last.

The broker does not say in which channels it ignores case (`fold_case`). It shows when two patterns get one id, or
when an event matches no pattern as it is written. But such an event can also be for a subscription that has just
ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ._errors import SwitchboardError
from ._frames import After, Last, Message, Subscribed
from ._sinks import Gate, Sink
from ._track import Track
from ._triples import Triple

ENDED_MAX = 64
"""How many ended subscriptions are remembered."""


class Outcome:
    """What became of a subscription: the broker's first reply, or an error."""

    def __init__(self) -> None:
        self._done = asyncio.Event()
        self._reply: Subscribed | None = None
        self._error: SwitchboardError | None = None
        self._awaited = 0

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it."""
        return self._awaited > 0

    @property
    def done(self) -> bool:
        """Whether it is known."""
        return self._done.is_set()

    def set(self, outcome: Subscribed | SwitchboardError) -> None:
        """Notes the outcome."""
        if isinstance(outcome, Subscribed):
            self._reply = outcome
        else:
            self._error = outcome
        self._done.set()

    async def wait(self) -> Subscribed:
        """Returns the reply."""
        self._awaited += 1
        try:
            await self._done.wait()
        finally:
            self._awaited -= 1
        if self._reply is None:
            raise self._error or SwitchboardError("CLOSED", "the subscription was ended before it was made")
        return self._reply


class Held:
    """One subscription of this desk, to events or to requests."""

    def __init__(
        self,
        pattern: Triple,
        sink: Sink | None,
        *,
        group: str | None = None,
        user: str | None = None,
        recover: After | Last | None = None,
        handler: Callable[[Any], object] | None = None,
        answers: bool = True,
        concurrency: int | None = None,
    ) -> None:
        self.pattern = pattern
        # None: of requests.
        self.sink = sink
        self.group = group
        self.user = user
        self.handler = handler
        self.answers = answers
        self.slots = asyncio.Semaphore(concurrency) if concurrency is not None else None
        self.track = Track(recover)
        self.ready = Outcome()
        self.id: str | None = None
        # The number of its last Subscribe, and whether retained values can be for it.
        self.asked = 0
        self.fresh = True
        self.confirmed = False
        self.ended = False

    @property
    def may_recover(self) -> bool:
        """Whether the broker may keep a log for it."""
        return self.sink is not None and self.group is None and self.pattern.channel != "*" and self.user != "*"

    def options(self, recover: After | Last | None, retained: bool) -> dict[str, object]:
        """Returns `data` of Subscribe."""
        data: dict[str, object] = dict(self.pattern._asdict())
        if self.sink is None:
            data["role"] = "handler"
            if not self.answers:
                data["answers"] = False
        if self.group is not None:
            data["group"] = self.group
        if self.user is not None:
            data["user"] = self.user
        if retained:
            data["retained"] = True
        if isinstance(recover, Last):
            data["recover"] = {"last": recover.events}
        elif recover is not None:
            data["recover"] = {"epoch": recover.epoch, "offset": recover.offset}
        return data

    def is_same(self, other: Held) -> bool:
        """Returns whether the broker has one subscription for both."""
        mine = (self.pattern, self.sink is None, self.group, self.user)
        return mine == (other.pattern, other.sink is None, other.group, other.user)


class Subscriptions:
    """See the module."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._held: list[Held] = []
        self._asked = 0
        self._replaying: Held | None = None
        self._folding: set[str] = set()
        self._ended: deque[Triple] = deque(maxlen=ENDED_MAX)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held))

    def add(self, held: Held) -> None:
        """Adds a subscription."""
        self._held.append(held)

    def ask(self, held: Held, recover: After | Last | None) -> dict[str, object]:
        """Returns `data` of the Subscribe that is sent now."""
        self._asked += 1
        held.asked, held.fresh = self._asked, True
        held.track.ask(recover)
        again = any(other is not held and other.asked and other.is_same(held) for other in self._held)
        return held.options(recover, retained=again and held.sink is not None)

    def confirmed(self, held: Held, reply: Subscribed) -> None:
        """Notes the reply to Subscribe."""
        held.id, held.confirmed = reply.id, True
        replayed = reply.replayed if reply.recovered else None
        held.track.begin(reply.epoch, reply.offset, replayed)
        if replayed is not None:
            self._replaying = held
        for other in self._held:
            # Retained values arrive with the reply, so later ones are not for earlier subscriptions.
            other.fresh = other.fresh and other.asked >= held.asked
            if other.id == held.id and other.pattern != held.pattern:
                self._folding.add(held.pattern.channel)

    def remove(self, held: Held) -> str | None:
        """Removes a subscription. Returns the broker's id of it, if nothing else of this desk uses that."""
        if held.ended:
            return None
        held.ended = True
        self._held.remove(held)
        self._ended.append(held.pattern)
        if held.sink is not None:
            self.gate.leave(held.sink)
        if held.id is None or any(other.id == held.id or other.is_same(held) for other in self._held):
            return None
        return held.id

    def session_ended(self) -> None:
        """Forgets what the session knew."""
        self._replaying = None
        self._folding.clear()
        self._ended.clear()
        for held in self._held:
            held.id, held.asked, held.confirmed = None, 0, False

    def receivers(self, message: Message[Any], user: str | None) -> list[Held]:
        """Returns the subscriptions that an event is for. `user` is that of the session."""
        if message.replayed and self._replaying is not None:
            held = self._replaying
            return [held] if not held.ended and held.track.takes_replayed(message) else []
        triple = Triple(message.channel, message.topic, message.subtopic)
        matching = self._matching(triple, requests=False)
        # The broker sent it for one of them, so a filter that leaves none is not applied.
        matching = [held for held in matching if held.user in (None, "*", message.user)] or matching
        # Beside an observing subscription, an event of another user need not be from the log of this user.
        foreign = message.user != user and any(held.user is not None for held in matching)
        if message.retained:
            fresh = [held for held in matching if held.fresh] or matching
            return [held for held in fresh if held.track.takes_retained(message)]
        return [held for held in matching if held.track.takes_live(message, foreign and held.user is None)]

    def handler(self, message: Message[Any]) -> Held | None:
        """Returns the handler of a request: the one with the narrowest pattern."""
        matching = self._matching(Triple(message.channel, message.topic, message.subtopic), requests=True)
        return min(matching, key=lambda held: held.pattern.width, default=None)

    def _matching(self, triple: Triple, *, requests: bool) -> list[Held]:
        held = [it for it in self._held if (it.sink is None) is requests]
        if triple.channel in self._folding:
            return _folded(held, triple)
        matching = [it for it in held if it.pattern.matches(triple)]
        if matching or any(pattern.matches(triple) for pattern in self._ended):
            return matching
        matching = _folded(held, triple)
        if matching:
            self._folding.add(triple.channel)
        return matching


def _folded(held: list[Held], triple: Triple) -> list[Held]:
    """Returns those that match if case does not count in topic and subtopic."""
    folded = triple.folded()
    return [it for it in held if it.pattern.folded().matches(folded)]


def read_subscribed(data: dict[str, Any]) -> Subscribed:
    """Reads the reply to Subscribe."""
    recovered = data.get("Recovered")
    return Subscribed(
        id=str(data.get("SubscriptionId", "")),
        narrowed=data.get("Narrowed") is True,
        hint=data.get("Hint"),
        recovered=recovered if isinstance(recovered, bool) else None,
        recover_reason=data.get("RecoverReason"),
        replayed=data.get("Replayed"),
        epoch=data.get("Epoch"),
        offset=data.get("Offset"),
    )
