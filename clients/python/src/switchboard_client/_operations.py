"""`Operations`: publishes, requests and commands: what they send, and how they wait for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal, TypedDict

from ._driver import Driver
from ._errors import SwitchboardError
from ._frames import Answer, Failed, Gathered, Message, Receipt, failure, fields, integer, write
from ._outbox import Entry, Kind
from ._pending import Once, Operation
from ._results import failed
from ._results import receipt as read_receipt
from ._triples import read_triple


class Sending(TypedDict, total=False):
    """Options of everything that is sent."""

    user: str | None
    """The user whom it is for. A service names one on a user-scoped channel."""
    target: str | None
    """Only sessions of this source take part."""
    payload: Literal["data", "message"]
    """The field that has the payload."""
    fields: dict[str, object] | None
    """Further fields, which the broker passes on."""


REPEAT_WITHIN: Final = 60.0
"""How long, in seconds, an event with `once` may be sent again. The broker knows its id for longer: two minutes."""


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()
"""No payload, which is another thing than the payload `null`."""


class Operations:
    """See the module."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def envelope(
        self,
        triple: str,
        data: object,
        *,
        user: str | None = None,
        target: str | None = None,
        payload: Literal["data", "message"] = "data",
        fields: dict[str, object] | None = None,
    ) -> dict[str, object]:
        """Returns an envelope. The options are those of `Sending`."""
        envelope: dict[str, object] = {**(fields or {}), **read_triple(triple)._asdict()}
        routing = {"user": user, "target": target}
        envelope.update((key, value) for key, value in routing.items() if value is not None)
        if data is not ABSENT:
            envelope[payload] = data
        return envelope

    async def publish(
        self, envelope: dict[str, object], *, id: str | None, receipt: bool, once: bool
    ) -> Receipt | None:
        """Sends an event."""
        if not receipt:
            await self._ready()
            await self._driver.send(envelope, Kind.EVENT)
            return None
        envelope["id"] = id = id if id is not None else self._driver.next_id()
        if once:
            envelope["once"] = True
        await self._ready()
        operation = self._operation(id, envelope, Kind.EVENT, once=once)
        try:
            answer = await operation.answer
        except asyncio.CancelledError:
            self._withdraw(operation)
            raise
        if (error := failure(answer)) is not None:
            raise error
        return read_receipt(fields(answer.data))

    async def request(
        self, envelope: dict[str, object], timeout: float | None, on_more: Callable[[Message[Any]], None]
    ) -> Message[Any]:
        """Sends a request, and waits for its last answer."""
        envelope["id"] = id = self._driver.next_id()
        if timeout is not None:
            envelope["timeout"] = max(1, round(timeout * 1000))
        await self._ready()
        progressed = False

        def more(message: Message[Any]) -> None:
            nonlocal progressed
            progressed = True
            on_more(message)

        operation = self._operation(id, envelope, Kind.REQUEST, on_more=more)
        try:
            while not operation.answer.done():
                progressed = False
                await asyncio.wait((operation.answer,), timeout=timeout)
                if not operation.answer.done() and not progressed and (late := self._late(operation)) is not None:
                    self._cancel(operation)
                    raise late
            answer = await operation.answer
        except asyncio.CancelledError:
            self._cancel(operation)
            raise
        if (error := failure(answer)) is not None:
            raise error
        return answer

    async def gather(
        self, envelope: dict[str, object], timeout: float | None, on_answer: Callable[[Answer[Any]], None]
    ) -> Gathered[Any]:
        """Sends a request to every handler."""
        answers: list[Answer[Any]] = []
        refusals: list[Failed] = []

        def answered(message: Message[Any]) -> None:
            if (error := failure(message)) is not None:
                refusals.append(Failed(message.source, error.code))
                return
            answers.append(Answer(message.source, message.data))
            on_answer(answers[-1])

        end = fields((await self.request({**envelope, "gather": True}, timeout, answered)).data)
        return Gathered(tuple(answers), integer(end.get("Expected")) or 0, (*refusals, *failed(end)))

    async def command(self, topic: str, subtopic: str, data: object) -> Message[Any]:
        """Sends a command, and waits for the reply."""
        if self._driver.state != "open":
            await self._driver.check_open()
        operation = self._driver.command(topic, subtopic, data)
        try:
            return await operation.answer
        except asyncio.CancelledError:
            self._withdraw(operation)
            raise

    async def _ready(self) -> None:
        """Waits until a message can be sent, or refuses it."""
        driver = self._driver
        if driver.state == "closed":
            raise driver.why_closed()
        if driver.state == "open":
            await driver.out.room()
        elif driver.settings.when_away == "fail":
            raise SwitchboardError("AWAY", "the desk is not open")
        elif not driver.out.has_room_away():
            raise SwitchboardError("OVERFLOW", "the desk is not open, and holds as many messages as it may")

    def _operation(
        self, id: str, envelope: dict[str, object], kind: Kind, *, once: bool = False, **more: Any
    ) -> Operation:
        driver = self._driver
        text, size = write(envelope)
        driver.check_size(size)
        until = asyncio.get_running_loop().time() + REPEAT_WITHIN
        operation = Operation(id, Entry(kind, text, size), once=Once(text, size, until) if once else None, **more)
        driver.out.push(operation.entry)
        driver.pending.add(operation)
        return operation

    def _late(self, operation: Operation) -> SwitchboardError | None:
        """Returns why a request ends whose time is over without a connection. On a connection, the broker ends it."""
        if not operation.entry.written:
            return SwitchboardError("REQUEST_TIMEOUT", "the request was not sent in time: the desk is not open")
        if self._driver.state == "open":
            return None
        return SwitchboardError("LOST", "the connection was lost, and did not return in the request's time")

    def _withdraw(self, operation: Operation) -> bool:
        """The caller waits no longer. Returns whether the message was not sent yet, and will not be."""
        self._driver.pending.remove(operation)
        return self._driver.out.withdraw(operation.entry)

    def _cancel(self, operation: Operation) -> None:
        if not operation.answer.done() and not self._withdraw(operation) and self._driver.state != "closed":
            self._driver.cancel_request(operation.id)
