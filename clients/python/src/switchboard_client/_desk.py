"""`connect` and `Desk`: the surface of this package."""

from __future__ import annotations

import asyncio
import contextlib
import ssl as tls
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from ._driver import Driver
from ._errors import SwitchboardError
from ._frames import (
    After,
    Answer,
    Application,
    Back,
    Credentials,
    D,
    Dropped,
    Gathered,
    Lagging,
    Last,
    Message,
    Receipt,
    Session,
    State,
    StateChange,
    Will,
    failure,
    fields,
)
from ._handling import Request
from ._listeners import Listeners, Log, standard_log
from ._operations import ABSENT, Operations, Sending
from ._results import applications, credentials
from ._settings import Settings, TokenProvider, WhenAway, check_url
from ._sinks import Buffer, Function
from ._subscription import Events, Subscription
from ._subscriptions import Held
from ._triples import read_pattern, read_triple

DEFAULT_URL = "ws://localhost:7420/ws"
CLOSING_MAX = 2.0
"""How long leaving may take, in seconds: to send what was published, and to unregister."""
BUFFER = 1024
"""How many events an iterator holds by default."""


def connect(
    source: str,
    *,
    token: str | TokenProvider | None = None,
    url: str | Sequence[str] = DEFAULT_URL,
    user: str | None = None,
    resume: bool = True,
    when_away: WhenAway = "keep",
    will: Will | None = None,
    ssl: tls.SSLContext | None = None,
    log: Log | None = None,
) -> Desk:
    """Returns a desk, which connects when its `async with` block is entered.

    - `token`: a token, or a function `(why) -> token`, sync or async, that is called before the socket is opened
      ("register", "refused") and when the proof expires soon ("renew").
    - `url`: one address, or several that are tried in turn.
    - `user`: in open mode only.
    - `when_away`: what `publish` and `request` do while the desk is not open: "keep" holds up to 1,000 messages or 1
      MiB, "fail" refuses with AWAY.
    - `ssl`: for `wss://`, if the platform's certificates are not enough.
    - `log`: a function `(level, text)` in place of the logger `switchboard_client`. It never gets a payload or a token.
    """
    urls = (url,) if isinstance(url, str) else tuple(url)
    if not urls:
        raise SwitchboardError("BAD_ADDRESS", "there is no address")
    if when_away not in ("keep", "fail"):
        raise ValueError("when_away is 'keep' or 'fail'")
    if will is not None:
        read_triple(will.triple)
    checked = tuple(check_url(it) for it in urls)
    return Desk(Settings(source, checked, token, user, resume, when_away, will, ssl, log or standard_log))


class Desk:
    """A registered application. `connect` makes one."""

    def __init__(self, settings: Settings) -> None:
        self._listeners = Listeners(settings.log)
        self._driver = Driver(settings, self._listeners)
        self._operations = Operations(self._driver)
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Desk {self._driver.source!r} {self.state}>"

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise SwitchboardError("CLOSED", "the block of a desk is entered once")
        self._task = asyncio.create_task(self._driver.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def state(self) -> State:
        """The state."""
        return self._driver.state

    @property
    def problem(self) -> SwitchboardError | None:
        """Why it is not open now."""
        return self._driver.problem

    @property
    def session(self) -> Session | None:
        """The session, while it is open."""
        return self._driver.session

    async def opened(self) -> Self:
        """Waits until it is open, and its subscriptions are made. Raises only if it has closed, which is final."""
        while self.state != "open":
            if self.state == "closed":
                raise self._driver.why_closed()
            await self._driver.changed.wait()
        return self

    async def closed(self) -> SwitchboardError:
        """Waits until it is closed, by this program or because connecting again cannot help. Returns why."""
        while self.state != "closed":
            await self._driver.changed.wait()
        return self._driver.why_closed()

    def retry(self) -> None:
        """Connects now, without waiting for the end of the pause."""
        self._driver.retry()

    async def close(self) -> None:
        """Ends the session, its resume token and its will."""
        if self._task is None or self._task.done():
            return
        with contextlib.suppress(SwitchboardError, TimeoutError):
            async with asyncio.timeout(CLOSING_MAX):
                await self._driver.unregister()
        self._driver.closed_by = asyncio.current_task()
        self._task.cancel()
        await asyncio.wait((self._task,))

    @overload
    def on(self, event: Literal["state"], function: Callable[[StateChange], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["back"], function: Callable[[Back], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["error"], function: Callable[[SwitchboardError], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["lagging"], function: Callable[[Lagging], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["dropped"], function: Callable[[Dropped], object]) -> Callable[[], None]: ...
    def on(self, event: str, function: Callable[[Any], object]) -> Callable[[], None]:
        """Calls a function for each event of the desk. Returns a function that removes it.

        - `state`: the state or the problem has changed.
        - `back`: once after each reconnection, what it means.
        - `error`: an error that no awaited call reports.
        - `lagging`, `dropped`: this program takes messages too slowly.
        """
        if event not in ("state", "back", "error", "lagging", "dropped"):
            raise ValueError(f"a desk has no event {event!r}")
        return self._listeners.add(event, function)

    def subscribe(
        self,
        pattern: str,
        function: Callable[[Message[Any]], object],
        *,
        group: str | None = None,
        user: str | None = None,
        recover: After | Last | None = None,
    ) -> Subscription:
        """Calls a function for each event that a pattern matches. A coroutine runs as a task, which is not awaited."""
        sink = Function(self._driver.gate, self._listeners, function, f"the listener of {pattern}")
        return self._hold(Held(read_pattern(pattern), sink, group=group, user=user, recover=recover))

    def events(
        self,
        pattern: str,
        *,
        group: str | None = None,
        user: str | None = None,
        recover: After | Last | None = None,
        buffer: int = BUFFER,
    ) -> Events[D]:
        """Returns an iterator of the events that a pattern matches.

        Leaving the loop unsubscribes. A full buffer ends the iterator with OVERFLOW.
        """
        if buffer < 1:
            raise ValueError("a buffer holds at least one event")
        sink = Buffer(self._driver.gate, buffer)
        held = Held(read_pattern(pattern), sink, group=group, user=user, recover=recover)
        self._add(held)
        return Events(self._driver, held, sink)

    def handle(
        self, pattern: str, *, answers: bool = True, concurrency: int | None = None
    ) -> Callable[[Callable[[Request[Any]], object]], Subscription]:
        """Decorates a function, sync or async, that answers the requests that a pattern matches.

        What it returns is the answer. It raises SwitchboardError to refuse a request; any other exception answers
        INTERNAL, and becomes an `error` event. Its task is cancelled when the requester cancels or leaves, and at the
        deadline.

        - `answers`: False takes commands that have no answer.
        - `concurrency`: how many calls run at a time. Default: no limit.
        """
        if concurrency is not None and concurrency < 1:
            raise ValueError("at least one call runs at a time")

        def decorate(function: Callable[[Request[Any]], object]) -> Subscription:
            held = Held(read_pattern(pattern), None, handler=function, answers=answers, concurrency=concurrency)
            return self._hold(held)

        return decorate

    def _hold(self, held: Held) -> Subscription:
        self._add(held)
        return Subscription(self._driver, held)

    def _add(self, held: Held) -> None:
        if self.state == "closed":
            raise self._driver.why_closed()
        self._driver.subscribing.add(held)

    @overload
    async def publish(
        self,
        triple: str,
        data: object = ABSENT,
        *,
        id: str | None = None,
        receipt: Literal[True] = True,
        retain: bool = False,
        once: bool = False,
        **sending: Unpack[Sending],
    ) -> Receipt: ...
    @overload
    async def publish(
        self,
        triple: str,
        data: object = ABSENT,
        *,
        receipt: Literal[False],
        retain: bool = False,
        **sending: Unpack[Sending],
    ) -> None: ...
    async def publish(
        self,
        triple: str,
        data: object = ABSENT,
        *,
        id: str | None = None,
        receipt: bool = True,
        retain: bool = False,
        once: bool = False,
        **sending: Unpack[Sending],
    ) -> Receipt | None:
        """Publishes an event, and returns the broker's receipt.

        - `retain`: it is kept as the last value of its triple. `None` as `data` clears the value.
        - `once`: on channels with history, it is delivered at most once, even if it is sent again with the same `id`
          within two minutes. The client makes an `id` if there is none.
        - `receipt`: False returns when the event is on its way. A refusal becomes an `error` event.
        """
        envelope = self._operations.envelope(triple, data, **sending)
        if retain:
            envelope["retain"] = True
        return await self._operations.publish(envelope, id=id, receipt=receipt, once=once)

    async def request(
        self,
        triple: str,
        data: object = ABSENT,
        *,
        timeout: float | None = None,
        idempotent: bool = False,
        on_progress: Callable[[Any], object] | None = None,
        **sending: Unpack[Sending],
    ) -> Any:
        """Sends a request, and returns the payload of the answer. Cancelling the task cancels the request.

        - `timeout`: seconds; the broker's default is 10.
        - `idempotent`: it may be given to a second handler if the first leaves.
        - `on_progress`: gets each part of the answer before the last.
        """
        envelope = self._operations.envelope(triple, data, **sending)
        if idempotent:
            envelope["idempotent"] = True

        def part(message: Message[Any]) -> None:
            if on_progress is not None:
                self._listeners.call(on_progress, message.data, f"on_progress of {triple}")

        return (await self._operations.request(envelope, timeout, part)).data

    async def gather(
        self,
        triple: str,
        data: object = ABSENT,
        *,
        timeout: float | None = None,
        on_answer: Callable[[Answer[Any]], object] | None = None,
        **sending: Unpack[Sending],
    ) -> Gathered[Any]:
        """Sends a request to every handler, and returns their answers when all have answered or failed."""
        envelope = self._operations.envelope(triple, data, **sending)

        def answered(answer: Answer[Any]) -> None:
            if on_answer is not None:
                self._listeners.call(on_answer, answer, f"on_answer of {triple}")

        return await self._operations.gather(envelope, timeout, answered)

    async def credentials(self) -> Credentials:
        """Returns the CTI login of this session's user. Never cached or logged."""
        return credentials(await self.request("Salesforce/User/FetchCredentials"))

    async def applications(self) -> tuple[Application, ...]:
        """Returns the registered applications of this session's user, and the services."""
        return applications(fields(await self._command("Application", "List")))

    async def explain(self, triple: str, *, to: str | None = None) -> Any:
        """Returns who would get an envelope on this triple now, and why the others would not. `to`: a source."""
        data: dict[str, object] = {"envelope": read_triple(triple)._asdict()}
        if to is not None:
            data["to"] = {"source": to}
        return await self._command("Message", "Explain", data)

    async def set_state(self, state: Literal["active", "asleep"]) -> None:
        """Says whether this program is asleep. A handler that is gets requests only if there is no other."""
        await self._command("Application", "SetState", {"state": state})

    async def _command(self, topic: str, subtopic: str, data: object = None) -> Any:
        answer = await self._operations.command(topic, subtopic, data)
        if (error := failure(answer)) is not None:
            raise error
        return answer.data
