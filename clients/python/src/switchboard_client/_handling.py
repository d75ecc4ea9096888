"""`Handlers`: the requests that this desk works on. Each runs as a task, which ends when the request does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from ._errors import SwitchboardError
from ._frames import D, Message, fields, integer, string
from ._listeners import Listeners
from ._outbox import Kind
from ._subscriptions import Held

RUNNING_MAX = 10_000
"""How many requests may run, or wait for `concurrency`, at the same time."""


class Sender(Protocol):
    """What a handler needs of the connection."""

    source: str

    async def send(self, envelope: dict[str, object], kind: Kind) -> None:
        """Sends an envelope that nobody waits for."""


@dataclass(frozen=True, slots=True)
class Request(Message[D]):
    """A request to answer: what the handler returns is the answer."""

    request_id: str | None
    """The requester's own id."""
    gather: bool
    _running: Running = field(repr=False)

    @property
    def deadline(self) -> datetime:
        """When the broker answers in place of the handler. Moves with each `progress`."""
        left = self._running.deadline - asyncio.get_running_loop().time()
        return datetime.now(UTC) + timedelta(seconds=left)

    async def progress(self, data: object) -> None:
        """Sends a part of the answer, which restarts the request's clock."""
        await self._running.reply(data, more=True)

    async def answer(
        self,
        data: object,
        *,
        topic: str | None = None,
        subtopic: str | None = None,
        payload: Literal["data", "message"] = "data",
    ) -> None:
        """Replies in place of the handler's return value.

        For vendor clients that expect another topic, subtopic or payload field.
        """
        await self._running.reply(data, topic=topic, subtopic=subtopic, payload=payload)


class Running:
    """A request that a handler works on."""

    def __init__(self, sender: Sender, message: Message[Any], answers: bool) -> None:
        self._sender = sender
        self._message = message
        self._limit = (integer(message.envelope.get("timeout")) or 10_000) / 1000
        self.deadline = asyncio.get_running_loop().time() + self._limit
        self.scope: asyncio.Timeout | None = None
        # A command without an answer is complete when it is delivered.
        self.answered = not answers

    async def reply(
        self,
        data: object,
        *,
        more: bool = False,
        topic: str | None = None,
        subtopic: str | None = None,
        payload: str = "data",
    ) -> None:
        """Sends a reply, if the request is still open."""
        if self.answered:
            return
        message = self._message
        envelope: dict[str, object] = {
            "channel": message.channel,
            "topic": topic or message.topic,
            "subtopic": subtopic or message.subtopic,
            "inReplyTo": message.id,
        }
        if message.envelope.get("gather") is True:
            # The broker adds none, and the requester has to know who answered.
            envelope["source"] = self._sender.source
        if more:
            envelope["more"] = True
        await self._sender.send({**envelope, payload: data}, Kind.OF_SESSION)
        if not more:
            self.answered = True
            return
        self.deadline = asyncio.get_running_loop().time() + self._limit
        if self.scope is not None:
            self.scope.reschedule(self.deadline)


class Handlers:
    """See the module."""

    def __init__(self, sender: Sender, listeners: Listeners) -> None:
        self._sender = sender
        self._listeners = listeners
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, message: Message[Any], held: Held | None) -> None:
        """Gives a request to its handler, or refuses it."""
        id = message.id
        if id is None:
            return
        if held is None or held.handler is None:
            work = self._refuse(message, "HANDLER_GONE", "the handler stopped before it began this request")
        elif len(self._tasks) >= RUNNING_MAX:
            work = self._refuse(message, "TOO_MANY_REQUESTS", f"the handler has {RUNNING_MAX} requests already")
        else:
            work = self._work(message, held, held.handler)
        task = asyncio.create_task(work)
        self._tasks[id] = task
        task.add_done_callback(lambda _: self._tasks.pop(id, None))

    def cancel(self, id: str | None) -> None:
        """The request has ended: its requester cancelled or left, or had its answer."""
        if id is not None and (task := self._tasks.get(id)) is not None:
            task.cancel()

    def cancel_all(self, spared: asyncio.Task[Any] | None = None) -> None:
        """The session has ended, and with it all its requests. Cancels their handlers, except this one."""
        for task in self._tasks.values():
            if task is not spared:
                task.cancel()

    async def _refuse(self, message: Message[Any], code: str, words: str) -> None:
        await self._finish(Running(self._sender, message, answers=True), SwitchboardError(code, words))

    async def _work(self, message: Message[Any], held: Held, handler: Callable[[Any], object]) -> None:
        running = Running(self._sender, message, held.answers)
        request = Request(
            **{it.name: getattr(message, it.name) for it in dataclass_fields(message)},
            request_id=string(message.envelope.get("requestId")),
            gather=message.envelope.get("gather") is True,
            _running=running,
        )
        scope: asyncio.Timeout | None = None
        try:
            async with asyncio.timeout_at(running.deadline) as scope:
                running.scope = scope
                result = await self._call(request, held, handler)
        except SwitchboardError as error:
            await self._finish(running, error)
        except Exception as error:
            if isinstance(error, TimeoutError) and scope is not None and scope.expired():
                # The broker has answered.
                return
            self._listeners.raised(error, f"the handler of {held.pattern}")
            await self._finish(running, SwitchboardError("INTERNAL", "the handler failed"))
        else:
            await self._finish(running, None, result)

    async def _call(self, request: Request[Any], held: Held, handler: Callable[[Any], object]) -> object:
        if held.slots is None:
            return await _result(handler(request))
        async with held.slots:
            return await _result(handler(request))

    async def _finish(self, running: Running, error: SwitchboardError | None, result: object = None) -> None:
        try:
            await running.reply(result if error is None else _failure(error))
        except SwitchboardError as unsent:
            # It is too long, or not JSON.
            self._listeners.emit("error", unsent)
            code = "TOO_LARGE" if unsent.code == "TOO_LARGE" else "INTERNAL"
            await running.reply(_failure(SwitchboardError(code, "the handler's answer could not be sent")))


async def _result(value: object) -> object:
    return await value if isinstance(value, Awaitable) else value


def _failure(error: SwitchboardError) -> dict[str, object]:
    more = fields(error.data)
    return {**more, "Success": False, "ErrorCode": error.code, "ErrorMessage": error.message}
