"""`Pending`: the envelopes that have no last answer yet, by their ids."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._errors import SwitchboardError
from ._frames import Message, string
from ._outbox import Entry


@dataclass(frozen=True, slots=True)
class Once:
    """An event that may be sent again, because the broker recognises the repetition."""

    text: str
    size: int
    until: float


class Operation:
    """An envelope that waits for its answer."""

    def __init__(
        self,
        id: str,
        entry: Entry,
        *,
        on_more: Callable[[Message[Any]], None] | None = None,
        on_answer: Callable[[Message[Any]], None] | None = None,
        once: Once | None = None,
    ) -> None:
        self.id = id
        self.entry = entry
        self.on_more = on_more
        # Called before the next message is read, which a future cannot do.
        self.on_answer = on_answer
        self.once = once
        self.answer: asyncio.Future[Message[Any]] = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(_retrieve)

    def fail(self, error: SwitchboardError) -> None:
        """Ends it without an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


def _retrieve(answer: asyncio.Future[Message[Any]]) -> None:
    # Its task may have been cancelled at the same moment. asyncio would log that nobody looked at the exception.
    if not answer.cancelled():
        answer.exception()


class Pending:
    """See the module."""

    def __init__(self) -> None:
        # An application can use one id several times. Answers arrive in the order of the envelopes.
        self._operations: dict[str, deque[Operation]] = {}

    def __iter__(self) -> Iterator[Operation]:
        return iter([operation for queue in self._operations.values() for operation in queue])

    def add(self, operation: Operation) -> None:
        """Waits for the answer."""
        self._operations.setdefault(operation.id, deque()).append(operation)

    def remove(self, operation: Operation) -> None:
        """Waits for the answer no longer."""
        queue = self._operations.get(operation.id)
        if queue and operation in queue:
            queue.remove(operation)
            if not queue:
                del self._operations[operation.id]

    def answered(self, message: Message[Any]) -> Operation | None:
        """Passes an answer on, and returns what it answers."""
        id = string(message.envelope.get("inReplyTo"))
        queue = self._operations.get(id) if id is not None else None
        if not queue:
            return None
        operation = queue[0]
        if message.envelope.get("more") is True and operation.on_more is not None:
            operation.on_more(message)
            return operation
        self.remove(operation)
        if operation.on_answer is not None:
            operation.on_answer(message)
        if not operation.answer.done():
            operation.answer.set_result(message)
        return operation
