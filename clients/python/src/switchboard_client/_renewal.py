"""`Renewal`: a new proof of identity for a session whose old one expires soon.

When the broker sends `Broker/Connection/Expiring`, the client asks its token provider and sends
`Broker/Application/Renew`. If the provider fails, or the broker cannot verify the token now, it tries again with
back-off. If the broker refuses the token, the session ends at its time, and the next registration has another one.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from ._backoff import Backoff
from ._errors import SwitchboardError
from ._frames import failure
from ._outbox import Kind

if TYPE_CHECKING:
    from ._driver import Driver

TOKEN_MAX = 30.0
ANSWER_MAX = 10.0
SOON = 10.0
"""If `Expiring` arrives this soon after the last token, that token did not help, and its provider needs a pause."""
PAUSE = (2.0, 6.0)


class Renewal:
    """See the module."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._task: asyncio.Task[None] | None = None
        self._renewed_at: float | None = None

    def begin(self) -> None:
        """The proof of the session expires soon."""
        if not self._driver.settings.can_change_token:
            self._driver.settings.log("warn", "the proof of this session expires soon, and there is no token provider")
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew())

    def stop(self) -> None:
        """The connection has ended."""
        self._renewed_at = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _renew(self) -> None:
        backoff, now = Backoff(), asyncio.get_running_loop().time()
        if self._renewed_at is not None and now - self._renewed_at < SOON:
            await asyncio.sleep(random.uniform(*PAUSE))
        while (error := await self._attempt()) is not None:
            self._driver.listeners.emit("error", error)
            if not error.retryable:
                return
            await asyncio.sleep(backoff.next())

    async def _attempt(self) -> SwitchboardError | None:
        """Renews once. Returns why it failed."""
        driver = self._driver
        try:
            async with asyncio.timeout(TOKEN_MAX):
                token = await driver.settings.ask_token("renew")
        except Exception as error:
            problem = SwitchboardError("TOKEN_UNAVAILABLE", f"the token provider raised {type(error).__name__}")
            problem.__cause__ = error
            return problem
        operation = driver.command("Application", "Renew", {"token": token}, Kind.UPKEEP)
        try:
            async with asyncio.timeout(ANSWER_MAX):
                answer = await operation.answer
        except TimeoutError:
            return SwitchboardError("UPSTREAM_UNAVAILABLE", "the broker did not answer Renew in time")
        except SwitchboardError as error:
            return error
        self._renewed_at = asyncio.get_running_loop().time()
        return failure(answer)
