"""`Inbox`: passes each message of the broker on to what it is for: an operation, a handler, a subscription, a
listener."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ._errors import SwitchboardError
from ._frames import Dropped, Lagging, Message, failure, fields, integer, read, string

if TYPE_CHECKING:
    from ._driver import Driver

UNCOUNTED: Final = ("Broker/Application/Register", "Broker/Connection/Replaced")
"""The messages that are no part of a session, so that its count leaves them out."""

DRAINING_MAX: Final = 300.0
"""The longest pause that a draining broker can ask for, in seconds. Ours asks for at most 30."""


class Inbox:
    """See the module."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def receive(self, text: str) -> None:
        """Handles a message."""
        driver, now = self._driver, asyncio.get_running_loop().time()
        try:
            message = read(text)
        except (ValueError, RecursionError):
            driver.resume.count(now)
            driver.listeners.emit("error", SwitchboardError("INVALID_JSON", "a message of the broker cannot be read"))
            return
        if message.triple not in UNCOUNTED:
            driver.resume.count(now)
        if driver.resume.due(now):
            driver.acknowledge()
        if message.triple == "Broker/Request/Cancelled":
            driver.handlers.cancel(string(message.envelope.get("inReplyTo")))
        elif (operation := driver.pending.answered(message)) is not None:
            driver.out.prove(now, operation.entry.sequence)
        elif message.channel == "Broker":
            self._notice(message)
        elif string(message.envelope.get("inReplyTo")) is not None:
            # A late answer: its request was cancelled here.
            pass
        elif "timeout" in message.envelope and message.id is not None:
            # By rule 2.1 of the protocol an envelope with `timeout` is a request; an `id` alone can be a publisher's.
            driver.handlers.start(message, driver.subscriptions.handler(message))
        else:
            self._event(message)

    def _event(self, message: Message[Any]) -> None:
        driver = self._driver
        for held in driver.subscriptions.receivers(message, driver.user):
            if held.ended or held.sink is None:
                continue
            if held.sink.full:
                words = f"the buffer of {held.pattern} is full"
                driver.subscribing.end(held, SwitchboardError("OVERFLOW", words))
                continue
            held.sink.offer(message)
            driver.gate.note(held.sink)

    def _notice(self, message: Message[Any]) -> None:
        driver, data = self._driver, fields(message.data)
        match message.triple.removeprefix("Broker/"):
            case "Connection/Draining":
                after = integer(data.get("ReconnectAfterMs"))
                driver.reconnect_after = None if after is None else min(after / 1000, DRAINING_MAX)
            case "Connection/Expiring":
                driver.renewal.begin()
            case "Connection/Lagging":
                keys = ("Messages", "MessagesMax", "Bytes", "BytesMax")
                driver.listeners.emit("lagging", Lagging(*(integer(data.get(key)) or 0 for key in keys)))
            case "Message/Dropped":
                driver.listeners.emit("dropped", Dropped(integer(data.get("Count")) or 0))
            case "Message/Error":
                self._refusal(message)
            case "Subscription/Ended":
                self._ended(data)
            case "Application/Joined" | "Application/Left" | "Cluster/Gap":
                self._event(message)

    def _refusal(self, message: Message[Any]) -> None:
        """Reports a refusal that no operation waits for."""
        error = failure(message)
        if error is None:
            return
        if error.code == "NO_SUCH_REQUEST":
            # The request ended while its answer, or its cancellation, was on the way.
            self._driver.settings.log("debug", "an answer or a cancellation was too late")
        else:
            self._driver.listeners.emit("error", error)

    def _ended(self, data: dict[str, Any]) -> None:
        """The rights of this program have changed."""
        ids = data.get("SubscriptionIds")
        reason = string(data.get("Reason")) or "the rights of this program have changed"
        for held in self._driver.subscriptions:
            if isinstance(ids, list) and held.id in ids:
                # The broker has ended it already.
                held.id = None
                self._driver.subscribing.end(held, SwitchboardError("FORBIDDEN", reason))
        if narrowed := data.get("Narrowed"):
            count = len(narrowed) if isinstance(narrowed, list) else 1
            self._driver.settings.log("warn", f"the broker narrowed {count} subscriptions: {reason}")
