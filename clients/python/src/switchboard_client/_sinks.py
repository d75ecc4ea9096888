"""Sinks: what takes the events of a subscription: a buffer that an iterator reads, or a function.

All are bounded. While one is full, the connection is not read for a moment (`Gate`), so that the broker slows the
publishers down. If it is still full then, the next event for it ends its subscription with OVERFLOW: what is behind
it in the connection can be the answer that its reader is waiting for.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ._errors import SwitchboardError
from ._frames import Message
from ._listeners import Listeners

LISTENER_TASKS_MAX = 1024
"""How many coroutines of one listener run at the same time."""
FULL_WAIT = 1.0
"""How long, in seconds, the connection is not read because a sink is full."""


class Sink(Protocol):
    """Takes the events of one subscription."""

    raises: bool
    """Whether its reader gets the error with which it ends."""

    @property
    def full(self) -> bool:
        """Whether it can take no further event."""

    def offer(self, message: Message[Any]) -> None:
        """Takes an event. It is not full."""

    def end(self, error: SwitchboardError | None) -> None:
        """The subscription has ended."""


class Gate:
    """Holds the connection's reader back while a sink is full."""

    def __init__(self) -> None:
        self._full: set[Sink] = set()
        self._relieved = asyncio.Event()

    def note(self, sink: Sink) -> None:
        """Notes whether a sink is full."""
        if sink.full:
            self._full.add(sink)
        elif sink in self._full:
            self._full.discard(sink)
            self._relieved.set()

    def leave(self, sink: Sink) -> None:
        """The sink has ended."""
        self._full.discard(sink)
        self._relieved.set()

    @property
    def closed(self) -> bool:
        """Whether a sink is full."""
        return bool(self._full)

    async def wait(self) -> None:
        """Waits until no sink is full, for a moment."""
        try:
            async with asyncio.timeout(FULL_WAIT):
                while self._full:
                    self._relieved.clear()
                    await self._relieved.wait()
        except TimeoutError:
            self._full.clear()


class Buffer:
    """The buffer of an iterator."""

    raises = True

    def __init__(self, gate: Gate, size: int) -> None:
        self._gate = gate
        self._size = size
        self._messages: deque[Message[Any]] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._error: SwitchboardError | None = None

    @property
    def full(self) -> bool:
        return len(self._messages) >= self._size

    def offer(self, message: Message[Any]) -> None:
        self._messages.append(message)
        self._changed.set()

    def end(self, error: SwitchboardError | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self._changed.set()

    async def next(self) -> Message[Any] | None:
        """Returns the next event; None at the end. Raises the error with which the subscription ended."""
        while not self._messages:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._gate.note(self)
        return message


class Function:
    """A function that is called for each event. A coroutine runs as a task, which is not awaited."""

    raises = False

    def __init__(self, gate: Gate, listeners: Listeners, function: Callable[[Message[Any]], object], name: str) -> None:
        self._gate = gate
        self._listeners = listeners
        self._function = function
        self._name = name
        self._running = 0

    @property
    def full(self) -> bool:
        return self._running >= LISTENER_TASKS_MAX

    def offer(self, message: Message[Any]) -> None:
        try:
            result = self._function(message)
        except Exception as error:
            self._listeners.raised(error, self._name)
            return
        if inspect.iscoroutine(result):
            self._running += 1
            self._listeners.spawn(result, self._name).add_done_callback(self._finished)

    def _finished(self, _: asyncio.Task[object]) -> None:
        self._running -= 1
        self._gate.note(self)

    def end(self, error: SwitchboardError | None) -> None:
        """There is nothing to end: what runs goes on."""
