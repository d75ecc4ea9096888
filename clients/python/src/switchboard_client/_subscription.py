"""`Subscription` and `Events`: what a program holds of a subscription."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from types import TracebackType
from typing import Generic, Self, cast

from ._driver import Driver
from ._frames import D, Message, Subscribed
from ._sinks import Buffer
from ._subscriptions import Held


class Subscription:
    """A subscription, to events or to requests. As a context manager it unsubscribes at the end of the block."""

    def __init__(self, driver: Driver, held: Held) -> None:
        self._driver = driver
        self._held = held

    @property
    def pattern(self) -> str:
        """The pattern, with all three parts."""
        return str(self._held.pattern)

    @property
    def ready(self) -> Awaitable[Subscribed]:
        """The broker's first reply, which can be awaited any number of times. Raises if the broker refused."""
        return _Ready(self._held)

    def unsubscribe(self) -> None:
        """Ends it."""
        self._driver.subscribing.end(self._held, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unsubscribe()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pattern!r}>"


class _Ready(Awaitable[Subscribed]):
    # A coroutine in its place would have to be awaited.

    def __init__(self, held: Held) -> None:
        self._held = held

    def __await__(self):  # type: ignore[no-untyped-def] # the generator of a coroutine has no other type
        return self._held.ready.wait().__await__()


class Events(Subscription, Generic[D]):
    """An asynchronous iterator of events. Leaving the loop unsubscribes."""

    def __init__(self, driver: Driver, held: Held, buffer: Buffer) -> None:
        super().__init__(driver, held)
        self._buffer = buffer
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            # Outside a loop nothing is subscribed to yet.
            self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[D]:
        self._loop = asyncio.get_running_loop()
        message = await self._buffer.next()
        if message is None:
            raise StopAsyncIteration
        return cast(Message[D], message)

    async def aclose(self) -> None:
        """Ends it, as asynchronous generators do."""
        self.unsubscribe()

    def __del__(self) -> None:
        # `break` calls nothing. Another thread's garbage collection may call this.
        loop, held = self._loop, self._held
        if loop is not None and not held.ended and not loop.is_closed():
            loop.call_soon_threadsafe(self._driver.subscribing.end, held, None)
