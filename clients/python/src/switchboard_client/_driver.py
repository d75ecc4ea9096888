"""`Driver`: the one task that owns the connection. It connects, serves a registered connection until that ends, waits
and connects again, by the table of close codes.

A session that continues on another connection goes on as if nothing had happened: what the broker has not taken is
sent again, and pending operations stay pending. In a new session, the subscriptions are made again after their last
event, and only those messages are sent again that were not sent, or that the broker recognises.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final, Literal

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ._backoff import Backoff
from ._catalogue import Reconnect
from ._errors import SwitchboardError
from ._frames import Back, Message, Session, State, StateChange, write
from ._handling import Handlers
from ._inbox import Inbox
from ._link import GIVE_UP, LEAVE, Ended, Link, close, closed, ended, open_link
from ._listeners import Listeners
from ._outbox import Entry, Kind, Outbox
from ._pending import Operation, Pending
from ._renewal import Renewal
from ._resume import Resume
from ._settings import Settings, Why
from ._sinks import Gate
from ._subscribing import Subscribing
from ._subscriptions import Subscriptions

STABLE: Final = 10.0
"""A connection that lasted this long, in seconds, resets the back-off."""
COMMAND_MAX: Final = 10.0
"""How long the broker may take to answer a command."""
WAKE_MAX: Final = 2.0
"""The same, for the Ping after a clock that jumped."""
TICK: Final = 0.5
JUMP: Final = 5.0
"""A wall clock that moved this much more than the event loop's shows that the computer slept."""
REFUSED_MAX: Final = 3
REFUSED_WITHIN: Final = 60.0
"""The driver stops at the third message within this time because of which the broker closed the connection."""
SILENCE: Final = 40.0
"""A connection that is dead is noticed within this time: websockets pings every 20 s, and waits 20 s for the answer."""
FAIR: Final = 32
"""How many messages are read before other tasks run."""


class Driver:
    """See the module."""

    def __init__(self, settings: Settings, listeners: Listeners) -> None:
        self.settings = settings
        self.source = settings.source
        self.listeners = listeners
        self.out = Outbox()
        self.pending = Pending()
        self.gate = Gate()
        self.subscriptions = Subscriptions(self.gate)
        self.handlers = Handlers(self, listeners)
        self.resume = Resume(settings.resume)
        self.renewal = Renewal(self)
        self.inbox = Inbox(self)
        self.subscribing = Subscribing(self)
        self.state: State = "connecting"
        self.problem: SwitchboardError | None = None
        self.session: Session | None = None
        # The user of the latest session.
        self.user: str | None = None
        self.changed = asyncio.Event()
        self.reconnect_after: float | None = None
        # The task that closes the desk, which can be one of its own.
        self.closed_by: asyncio.Task[Any] | None = None
        self._backoff = Backoff()
        self._retry = asyncio.Event()
        self._refused: deque[float] = deque(maxlen=REFUSED_MAX)
        self.serving = False
        self._began = False
        # In a channel with history, the broker takes an event with a known id for a repetition.
        self._prefix, self._ids = secrets.token_hex(8), 0
        self._confirmed_by = 0.0
        self._ping_by: float | None = None
        self._message_bytes_max: int | None = None
        self._link: Link | None = None
        self._leaving: Operation | None = None
        # What has happened since the desk was last open.
        self._lost_at: datetime | None = None
        self._resumed = False
        self._lossy = False
        self._last_read = time.time()

    async def run(self) -> None:
        """Runs until the desk is closed, or stops by itself."""
        stopped: SwitchboardError | None = None
        try:
            stopped = await self._run()
        except asyncio.CancelledError:
            # `Desk.close` ends the driver so.
            pass
        except Exception as error:
            stopped = SwitchboardError("INTERNAL", f"the client failed with {type(error).__name__}")
            stopped.__cause__ = error
            self.listeners.emit("error", stopped)
        finally:
            self._finish(stopped)

    async def _run(self) -> SwitchboardError:
        """Connects again and again. Returns why that cannot help any more."""
        urls, turn, why = self.settings.urls, 0, "register"
        while True:
            asked: Why = "refused" if why == "refused" else "register"
            try:
                link = await open_link(self.settings, urls[turn % len(urls)], asked, self.resume.option())
            except Ended as error:
                end, was_open = error, False
                turn += 1
            else:
                since = _now()
                end, was_open = await self._serve(link), True
                if _now() - since >= STABLE:
                    self._backoff.reset()
            wait = self._after(end)
            if wait is None:
                return why_stopped(end)
            if not was_open and turn % len(urls):
                wait = 0.0
            if end.error.code != "TOKEN_UNAVAILABLE":
                why = "refused" if end.reconnect is Reconnect.NEW_TOKEN else "register"
            self._change("connecting", end.error)
            self.settings.log("debug", f"connecting again in {wait:.1f} s: {end.error.code}")
            await self._pause(end.at + wait - _now())

    def _after(self, end: Ended) -> float | None:
        """Returns how long to wait after the end of a connection. None: stop."""
        match end.reconnect:
            case Reconnect.STOP:
                return None
            case Reconnect.NEW_TOKEN if not self.settings.can_change_token:
                return None
            case Reconnect.AFTER_DELAY if self.reconnect_after is not None:
                return self.reconnect_after
            case Reconnect.DROP_MESSAGE:
                self.listeners.emit("error", end.error)
                self._refused.append(end.at)
                if len(self._refused) == REFUSED_MAX and end.at - self._refused[0] <= REFUSED_WITHIN:
                    return None
        return self._backoff.next()

    async def _pause(self, wait: float) -> None:
        self._retry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(wait, 0)):
                await self._retry.wait()

    def retry(self) -> None:
        """Connects now."""
        self._retry.set()

    async def _serve(self, link: Link) -> Ended:
        """Serves one connection until it ends."""
        code = LEAVE
        self._begin(link)
        reader = asyncio.create_task(self._read(link.socket))
        ticker = asyncio.create_task(self._tick())
        tasks = [reader, ticker, asyncio.create_task(self._write(link.socket))]
        try:
            await asyncio.wait((reader, ticker), return_when=asyncio.FIRST_COMPLETED)
            end = reader.result() if reader.done() else ticker.result()
            code = GIVE_UP
        finally:
            self.serving = False
            self.renewal.stop()
            if self._leaving is not None:
                self._leaving.fail(end_of_connection())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await close(link.socket, code)
        if self._lost_at is None:
            self._lost_at = datetime.fromtimestamp(max(self._last_read, time.time() - SILENCE), UTC)
        if end.reconnect is Reconnect.DROP_MESSAGE:
            # It must not be sent again: the broker would close the connection again.
            self.end_session(f"the outcome is unknown: {end.error.message}", repeats=False)
        elif self.resume.token is None:
            self.end_session("the connection was lost before the answer, so the outcome is unknown")
        return end

    async def _read(self, socket: ClientConnection) -> Ended:
        count = 0
        try:
            while True:
                text = await socket.recv()
                self._last_read = time.time()
                if isinstance(text, str):
                    self.inbox.receive(text)
                count += 1
                if self.gate.closed:
                    await self.gate.wait()
                elif count % FAIR == 0:
                    await asyncio.sleep(0)
        except ConnectionClosed as error:
            return closed(error)

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while True:
                text = self.out.take(_now())
                if text is None:
                    await self.out.added()
                    continue
                await socket.send(text)
                if self.out.must_ask(_now()):
                    self._ping(COMMAND_MAX)
        except ConnectionClosed:
            # The reader says why, after what has arrived before.
            pass

    async def _tick(self) -> Ended:
        """Does what is due, and gives up a connection that does not answer."""
        skew = time.time() - _now()
        while True:
            await asyncio.sleep(TICK)
            now = _now()
            if self.resume.due(now):
                self.acknowledge()
            if self.out.must_ask(now):
                self._ping(COMMAND_MAX)
            if abs(time.time() - now - skew) > JUMP:
                skew = time.time() - now
                self._ping(WAKE_MAX)
            late = self._ping_by is not None and self._ping_by <= now
            if late or (self.subscribing.unconfirmed and self._confirmed_by <= now):
                return ended(SwitchboardError("AWAY", "the broker does not answer"), Reconnect.BACK_OFF)

    def _begin(self, link: Link) -> None:
        """Continues the session on a new connection, or begins another one."""
        self._link, self.serving = link, True
        self._message_bytes_max = link.message_bytes_max
        self.user = link.session.user
        self.reconnect_after = None
        self._ping_by = None
        self._confirmed_by = _now() + COMMAND_MAX
        if link.taken is not None:
            self._resumed = True
            self._lossy |= not self.out.go_on(link.taken)
            for operation in self.pending:
                if operation.entry.kind is Kind.UPKEEP:
                    # It is not sent again.
                    self.pending.remove(operation)
            self.resume.go_on(link.resume_token)
            self.acknowledge()
            self.subscribing.ask_new()
        else:
            self._resumed = False
            self.end_session("the session could not be resumed, so the outcome is unknown")
            self.resume.begin(link.resume_token)
            self.out.begin(self.resume.token is not None)
            waiting = self.out.drain()
            self.subscribing.ask_all()
            for entry in waiting:
                self.out.push(entry)
        self.announce()

    def end_session(self, words: str, *, repeats: bool = True) -> None:
        """The session has ended. Its operations that were sent have no answer."""
        self._lossy |= self.out.end()
        now = _now()
        for operation in self.pending:
            entry = operation.entry
            if not entry.written and entry.kind in (Kind.EVENT, Kind.REQUEST):
                continue
            if repeats and operation.once is not None and now < operation.once.until:
                operation.entry = Entry(Kind.EVENT, operation.once.text, operation.once.size)
                self.out.push(operation.entry)
                continue
            self.pending.remove(operation)
            if entry.kind is not Kind.UPKEEP:
                operation.fail(SwitchboardError("LOST", words, in_reply_to=operation.id))
        self.handlers.cancel_all()
        self.subscribing.session_ended()
        self.resume.begin(None)

    def announce(self) -> None:
        """Opens the desk when the subscriptions are made."""
        if self.subscribing.unconfirmed or self._link is None or not self.serving or self.state != "connecting":
            return
        self.session = self._link.session
        self._change("open", None)
        if self._began:
            missed = () if self._resumed else tuple(self.subscribing.missed)
            lost = self._lossy or bool(missed)
            how: Literal["resumed", "recovered", "lost"] = (
                "lost" if lost else "resumed" if self._resumed else "recovered"
            )
            since = self._lost_at or datetime.now(UTC)
            self.listeners.emit("back", Back(how, since, missed))
        self._began, self._lossy, self._lost_at = True, False, None
        self.subscribing.missed.clear()

    def _change(self, state: State, problem: SwitchboardError | None) -> None:
        self.state, self.problem = state, problem
        if state != "open":
            self.session = None
        self.changed.set()
        self.changed = asyncio.Event()
        self.listeners.emit("state", StateChange(state, problem))

    def _finish(self, stopped: SwitchboardError | None) -> None:
        """Ends everything that waits. `stopped` is why the desk has stopped by itself."""
        problem = stopped or SwitchboardError("CLOSED", "the desk was closed by this program")
        self.state = "closed"
        self.handlers.cancel_all(self.closed_by)
        self.listeners.cancel(self.closed_by)
        for operation in self.pending:
            self.pending.remove(operation)
            operation.fail(SwitchboardError(problem.code, problem.message))
        for held in self.subscriptions:
            self.subscribing.end(held, stopped, reports=False)
        self.resume.begin(None)
        self._change("closed", problem)

    # What the other parts ask for.

    def why_closed(self) -> SwitchboardError:
        """Returns the error of what is asked of a closed desk."""
        problem = self.problem or SwitchboardError("CLOSED", "the desk was closed by this program")
        return SwitchboardError(problem.code, problem.message)

    async def check_open(self) -> None:
        """Waits until the desk is open, as `when_away` says."""
        while self.state != "open":
            if self.state == "closed":
                raise self.why_closed()
            if self.settings.when_away == "fail":
                raise SwitchboardError("AWAY", "the desk is not open")
            await self.changed.wait()

    async def unregister(self) -> None:
        """Ends the session. The reply shows that the broker has taken everything before. Raises if there is none."""
        if self.serving:
            self._leaving = self.command("Application", "Unregister", None)
            await self._leaving.answer

    def cancel_request(self, id: str) -> None:
        """Cancels a request. It may have ended meanwhile, so nothing waits for the reply."""
        envelope = {"channel": "Broker", "topic": "Request", "subtopic": "Cancel", "data": {"id": id}}
        self.out.push(Entry(Kind.OF_SESSION, *write(envelope)))

    def check_size(self, size: int) -> None:
        """Raises if a message is over the broker's limit. The broker would close the connection because of it."""
        if self._message_bytes_max is not None and size > self._message_bytes_max:
            words = f"the message has {size} bytes, and the broker takes {self._message_bytes_max}"
            raise SwitchboardError("TOO_LARGE", words)

    async def send(self, envelope: dict[str, object], kind: Kind) -> None:
        """Sends an envelope that nobody waits for."""
        text, size = write(envelope)
        self.check_size(size)
        await self.out.room()
        self.out.push(Entry(kind, text, size, silent=kind is Kind.EVENT))

    def command(self, topic: str, subtopic: str, data: object, kind: Kind = Kind.OF_SESSION, **more: Any) -> Operation:
        """Sends a command. `more` are options of `Operation`."""
        id = self.next_id()
        envelope = {"channel": "Broker", "topic": topic, "subtopic": subtopic, "id": id, "data": data}
        operation = Operation(id, Entry(kind, *write(envelope)), **more)
        self.out.push(operation.entry)
        self.pending.add(operation)
        return operation

    def next_id(self) -> str:
        """Returns an id that no other client of this source uses."""
        self._ids += 1
        return f"{self._prefix}-{self._ids}"

    def acknowledge(self) -> None:
        """Acknowledges what was received."""
        envelope = {"channel": "Broker", "topic": "Connection", "subtopic": "Acknowledge"}
        text, size = write({**envelope, "data": {"received": self.resume.acknowledge()}})
        self.out.push(Entry(Kind.UPKEEP, text, size))

    def _ping(self, limit: float) -> None:
        self.out.set_asking(True)
        self._ping_by = _now() + limit

        def pong(_: Message[Any]) -> None:
            self.out.set_asking(False)
            self._ping_by = None

        self.command("Connection", "Ping", None, Kind.UPKEEP, on_answer=pong)


def why_stopped(end: Ended) -> SwitchboardError:
    """Returns the problem of a desk that stops because of how its connection has ended."""
    if end.reconnect is Reconnect.DROP_MESSAGE:
        # Not AWAY: to wait does not help.
        return SwitchboardError("CLOSED", f"{end.error.message}, three times within a minute")
    return end.error


def end_of_connection() -> SwitchboardError:
    """Returns the error of what waits for an answer on a connection that has ended."""
    return SwitchboardError("AWAY", "the connection was lost")


def _now() -> float:
    return asyncio.get_running_loop().time()
