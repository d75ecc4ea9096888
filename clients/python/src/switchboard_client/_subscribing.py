"""`Subscribing`: makes the subscriptions of a desk, makes them again in a new session, and ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import SwitchboardError
from ._frames import Message, failure, fields
from ._subscriptions import Held, read_subscribed

if TYPE_CHECKING:
    from ._driver import Driver


class Subscribing:
    """See the module."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        # The subscriptions of a new session that have no reply yet.
        self.unconfirmed: set[Held] = set()
        # Those that may have missed events.
        self.missed: list[str] = []

    def ask_new(self) -> None:
        """The session continues: makes what was added meanwhile."""
        for held in self.driver.subscriptions:
            if not held.asked:
                self._ask(held)

    def ask_all(self) -> None:
        """A session has begun: makes all subscriptions."""
        for held in self.driver.subscriptions:
            self.unconfirmed.add(held)
            self._ask(held)

    def session_ended(self) -> None:
        """Forgets what the session knew."""
        self.driver.subscriptions.session_ended()
        self.unconfirmed.clear()

    def add(self, held: Held) -> None:
        """Makes a subscription, now or when the session opens."""
        self.driver.subscriptions.add(held)
        if self.driver.serving:
            self._ask(held)

    def _ask(self, held: Held, *, recovers: bool = True) -> None:
        recover = held.track.again() if (recovers and held.may_recover) or not held.ready.done else None
        again = held.ready.done
        data = self.driver.subscriptions.ask(held, recover)
        asked = held.asked

        def answered(message: Message[Any]) -> None:
            self._answered(held, asked, message, again, recover is not None)

        self.driver.command("Subscription", "Subscribe", data, on_answer=answered)

    def _answered(self, held: Held, asked: int, message: Message[Any], again: bool, recovering: bool) -> None:
        """Handles the reply to Subscribe."""
        if held.asked != asked:
            return
        error = failure(message)
        if error is not None:
            if again and recovering and error.code == "INVALID_ENVELOPE" and not held.ended:
                # The channel has no history any more.
                self._ask(held, recovers=False)
                return
            self.unconfirmed.discard(held)
            if not held.ended:
                self.end(held, error)
            self.driver.announce()
            return
        reply = read_subscribed(fields(message.data))
        if held.ended:
            # It was ended before it was made.
            held.id = reply.id
            if not any(other.id == reply.id or other.is_same(held) for other in self.driver.subscriptions):
                self.unsubscribe(reply.id)
        else:
            if again and held.sink is not None and not reply.recovered:
                self.missed.append(str(held.pattern))
            self.driver.subscriptions.confirmed(held, reply)
            held.ready.set(reply)
        self.unconfirmed.discard(held)
        self.driver.announce()

    def unsubscribe(self, id: str) -> None:
        """Ends a subscription of the broker."""
        self.driver.command("Subscription", "Unsubscribe", {"SubscriptionId": id})

    def end(self, held: Held, error: SwitchboardError | None, *, reports: bool = True) -> None:
        """Ends a subscription of this desk."""
        id = self.driver.subscriptions.remove(held)
        if id is not None and self.driver.state != "closed":
            self.unsubscribe(id)
        self.unconfirmed.discard(held)
        awaited = held.ready.awaited and not held.ready.done
        if not held.ready.done:
            held.ready.set(error or SwitchboardError("CLOSED", "the subscription was ended before it was made"))
        if held.sink is not None:
            held.sink.end(error)
        raises = held.sink is not None and held.sink.raises
        if error is not None and reports and not awaited and not raises:
            self.driver.listeners.emit("error", error)
