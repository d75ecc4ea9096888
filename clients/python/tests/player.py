"""Plays a transcript with desks: what its peers send are calls, and what they receive is what the calls return.

A call hides parts of an envelope. An answer is compared by its id and payload, without its triple. The ids of requests
are the client's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Literal

from switchboard_client import (
    After,
    Answer,
    Desk,
    Last,
    Message,
    Receipt,
    Request,
    Subscribed,
    Subscription,
    SwitchboardError,
    connect,
)

from .support import Broker, soon, until
from .transcript import NO_SESSION, SURFACE, TEXT, Envelope, Names, Step, Transcript, Unplayable, split

WAIT = 10.0
ROUTING = {"user", "target", "timeout", "idempotent", "gather", "retain", "once", "id", "data", "message"}
BROKERS = {"requestId", "seq", "offset", "epoch", "replayed", "retained", "more", "source", "inReplyTo"}


class Actor:
    """One peer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.desk: Desk | None = None
        self.gone = False
        # Events, requests, notices, in the order in which they arrived; and the outcomes of calls.
        self.deliveries: list[Envelope] = []
        self.outcomes: list[Envelope] = []
        self.requests: dict[str, tuple[Request, asyncio.Event]] = {}
        self.subscriptions: list[Subscription] = []
        self.calls: set[asyncio.Task[None]] = set()
        self._last: Message | None = None

    @property
    def open(self) -> Desk:
        """The desk."""
        if self.desk is None or self.gone:
            raise Unplayable(NO_SESSION)
        return self.desk

    def event(self, event: Message) -> None:
        """Notes an event, once for all subscriptions that it matches."""
        if event is not self._last:
            self._last = event
            self.deliveries.append(dict(event.envelope))

    async def handle(self, request: Request) -> None:
        """Keeps a request open until the transcript answers it."""
        assert request.id is not None
        answered = asyncio.Event()
        self.requests[request.id] = (request, answered)
        self.deliveries.append(dict(request.envelope))
        try:
            await answered.wait()
        except asyncio.CancelledError:
            notice = {"channel": "Broker", "topic": "Request", "subtopic": "Cancelled", "inReplyTo": request.id}
            if not answered.is_set():
                self.deliveries.append(notice)
            raise

    def error(self, error: SwitchboardError) -> None:
        """Notes a refusal that no call reports."""
        triple = {"channel": "Broker", "topic": "Message", "subtopic": "Error"}
        self.deliveries.append({**triple, "data": error.data})

    def call(self, id: str | None, call: Any, show: Callable[[Any], object]) -> None:
        """Makes a call, and notes its outcome."""

        async def run() -> None:
            try:
                data = show(await call)
            except SwitchboardError as error:
                data = error.data
            self.outcomes.append({"inReplyTo": id, "data": data})

        self.calls.add(asyncio.create_task(run()))


class Player:
    """A transcript that is being played."""

    def __init__(self, broker: Broker, transcript: Transcript) -> None:
        self._broker = broker
        self._transcript = transcript
        self._names = Names()
        self._actors: dict[str, Actor] = {}
        self._ended = contextlib.AsyncExitStack()

    async def play(self) -> None:
        """Plays it."""
        async with self._ended:
            for at, step in enumerate(self._transcript.steps):
                try:
                    async with asyncio.timeout(WAIT):
                        await self._play(at, step)
                except TimeoutError:
                    raise AssertionError(f"line {step.line}: {self._all()}") from None
            await self._settle()
            for actor in self._actors.values():
                if not actor.gone:
                    assert not actor.deliveries and not actor.outcomes, self._all()
            for actor in self._actors.values():
                for call in actor.calls:
                    call.cancel()
                await asyncio.gather(*actor.calls, return_exceptions=True)

    def _all(self) -> object:
        return {name: (actor.deliveries, actor.outcomes) for name, actor in self._actors.items()}

    def _actor(self, name: str) -> Actor:
        return self._actors.setdefault(name, Actor(name))

    async def _play(self, at: int, step: Step) -> None:
        actor = self._actor(step.peers[0])
        match step.action:
            case "register":
                await self._register(actor, step)
            case "subscribe" | "handle":
                data = {**step.options, "pattern": step.envelopes[0]["pattern"]}
                if step.action == "handle":
                    data["role"] = "handler"
                await self._subscribe(actor, data, None, step.text)
            case "send":
                await self._send(actor, at, step)
            case "expect":
                for expected in step.envelopes:
                    await self._expect((actor,), expected, among=len(step.envelopes) > 1)
            case "expect one":
                await self._expect(tuple(map(self._actor, step.peers)), step.envelopes[0])
            case "nothing":
                await self._settle()
                assert not actor.deliveries and not actor.outcomes, f"line {step.line}: {self._all()}"
            case "close":
                desk = actor.open
                await until(lambda: desk.problem, "the close")
                actor.gone = True
                # After some codes it would try again.
                await desk.close()
            case "leave":
                await self._settle()
                desk = actor.open
                actor.gone = True
                link, task = desk._driver._link, desk._task
                assert link is not None and task is not None
                link.socket.transport.abort()
                task.cancel()
            case "log":
                pass

    async def _register(self, actor: Actor, step: Step) -> None:
        if actor.desk is not None:
            raise Unplayable(NO_SESSION)
        if set(step.options) - {"token"}:
            raise Unplayable(SURFACE)
        who = step.envelopes[0]
        actor.desk = connect(
            who["source"], url=self._broker.url, user=who["user"], token=step.options.get("token"), resume=False
        )
        actor.desk.on("error", actor.error)
        await self._ended.enter_async_context(actor.desk)
        desk = actor.desk
        await until(lambda: desk.problem or desk.state == "open", "the registration")
        if step.text:
            assert desk.problem is not None and desk.problem.code == step.text, desk.problem
        else:
            assert desk.state == "open", desk.problem

    async def _subscribe(self, actor: Actor, data: Envelope, id: str | None, code: str | None) -> None:
        """Subscribes. `code`: the reply is checked here, and is a failure if there is one."""
        role, pattern = data.pop("role", "subscriber"), data.pop("pattern")
        known = {"answers"} if role == "handler" else {"group", "user", "recover"}
        if set(data) - known or role not in ("subscriber", "handler"):
            raise Unplayable(SURFACE)
        desk = actor.open
        try:
            if role == "handler":
                subscription = desk.handle(pattern, answers=data.get("answers", True))(actor.handle)
            else:
                if isinstance(recover := data.get("recover"), dict):
                    data["recover"] = Last(recover["last"]) if "last" in recover else After(**recover)
                subscription = desk.subscribe(pattern, actor.event, **data)
            reply: object = _subscribed(await soon(subscription.ready))
            actor.subscriptions.append(subscription)
        except SwitchboardError as error:
            if error.data is None:
                raise Unplayable(SURFACE) from None
            reply = error.data
        if code is None:
            actor.outcomes.append({"inReplyTo": id, "data": reply})
        else:
            assert isinstance(reply, dict) and (reply.get("ErrorCode") or "") == code, reply

    async def _send(self, actor: Actor, at: int, step: Step) -> None:
        triple, rest = split(self._names.fill(step.text))
        try:
            fields = json.loads(rest) if rest else {}
        except ValueError:
            raise Unplayable(TEXT) from None
        pairs = json.loads(rest or "{}", object_pairs_hook=list)
        if not triple or len(fields) != len(pairs) or set(fields) & {"channel", "topic", "subtopic"}:
            raise Unplayable(TEXT)
        if triple["channel"] == "Broker":
            await self._command(actor, f"{triple['topic']}/{triple['subtopic']}", fields)
            return
        name = "/".join(triple.values())
        if isinstance(reply_to := fields.get("inReplyTo"), str):
            await self._reply(actor, reply_to, triple, fields)
            return
        if set(fields) & BROKERS:
            raise Unplayable(SURFACE)
        await self._call(actor, name, fields, self._is_request(at, step, fields))

    def _is_request(self, at: int, step: Step, fields: Envelope) -> bool:
        """Returns whether an envelope is answered as a request, as the transcript goes on."""
        if set(fields) & {"timeout", "gather", "idempotent"}:
            return True
        for later in self._transcript.steps[at + 1 :]:
            if later.action == "expect" and later.peers == step.peers and "id" in fields:
                for envelope in later.envelopes:
                    if envelope.get("inReplyTo") == fields["id"]:
                        return envelope.get("channel") != "Broker"
        return False

    async def _call(self, actor: Actor, triple: str, fields: Envelope, request: bool) -> None:
        desk = actor.open
        more = {key: value for key, value in fields.items() if key not in ROUTING}
        options: Envelope = {key: fields[key] for key in ("user", "target") if key in fields}
        if "data" in fields and "message" in fields:
            raise Unplayable(SURFACE)
        if "message" in fields:
            options["payload"] = "message"
        arguments = [fields[key] for key in ("data", "message") if key in fields]
        options["fields"] = more
        id = fields.get("id")
        numbers = isinstance(fields.get("timeout", 1), int)
        if None in (fields.get(key, "") for key in ("timeout", "user", "target", "id")) or not numbers:
            raise Unplayable(SURFACE)
        if request:
            if "retain" in fields or "once" in fields:
                raise Unplayable(SURFACE)
            if "timeout" in fields:
                options["timeout"] = fields["timeout"] / 1000

            def part(value: object) -> None:
                data = value.data if isinstance(value, Answer) else value
                actor.outcomes.append({"inReplyTo": id, "more": True, "data": data})

            if fields.get("gather"):
                actor.call(id, desk.gather(triple, *arguments, on_answer=part, **options), _gathered)
            else:
                options["idempotent"] = fields.get("idempotent", False)
                actor.call(id, desk.request(triple, *arguments, on_progress=part, **options), lambda data: data)
        else:
            options["retain"] = fields.get("retain", False)
            if id is None and "once" in fields:
                raise Unplayable(SURFACE)
            if id is None:
                await desk.publish(triple, *arguments, receipt=False, **options)
                return
            options["once"] = fields.get("once", False)
            actor.call(id, desk.publish(triple, *arguments, id=id, **options), _receipt)
        # The envelope is on its way before the next step.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _reply(self, actor: Actor, to: str, triple: Envelope, fields: Envelope) -> None:
        request, answered = actor.requests.get(to, (None, None))
        if request is None or answered is None or set(fields) - {"inReplyTo", "data", "message", "more"}:
            raise Unplayable(SURFACE)
        if request.channel != triple["channel"]:
            raise Unplayable(SURFACE)
        if answered.is_set():
            raise Unplayable(SURFACE)
        value = fields.get("data", fields.get("message"))
        if fields.get("more"):
            await request.progress(value)
            return
        payload: Literal["data", "message"] = "message" if "message" in fields else "data"
        await request.answer(value, topic=triple["topic"], subtopic=triple["subtopic"], payload=payload)
        answered.set()

    async def _command(self, actor: Actor, command: str, fields: Envelope) -> None:
        data, id = fields.get("data") or {}, fields.get("id")
        desk = actor.open
        if not isinstance(data, dict) or set(fields) - {"id", "data"}:
            raise Unplayable(SURFACE)
        match command:
            case "Subscription/Subscribe":
                parts = [data.pop(key, "*") for key in ("channel", "topic", "subtopic")]
                if not all(isinstance(part, str) and part for part in parts):
                    raise Unplayable(SURFACE)
                await self._subscribe(actor, {**data, "pattern": "/".join(parts)}, id, None)
            case "Subscription/Unsubscribe":
                await self._unsubscribe(actor, data, id)
            case "Message/Explain" if set(data.get("envelope", {})) == {"channel", "topic", "subtopic"}:
                triple, to = "/".join(data["envelope"].values()), data.get("to", {})
                if set(data) - {"envelope", "to"} or set(to) - {"source"}:
                    raise Unplayable(SURFACE)
                actor.call(id, desk.explain(triple, to=to.get("source")), lambda found: found)
            case "Application/List" if not data:
                actor.call(id, desk.applications(), _applications)
            case "Application/SetState" if data.get("state") in ("active", "asleep") and len(data) == 1:
                actor.call(id, desk.set_state(data["state"]), lambda _: {"Success": True, "ErrorMessage": None})
            case "Application/Unregister" if not data:
                await desk.close()
                actor.gone = True
            case _:
                raise Unplayable(SURFACE)

    async def _unsubscribe(self, actor: Actor, data: Envelope, id: str | None) -> None:
        """Ends the subscription of an id, or those of a pattern."""
        parts = {"channel": "*", "topic": "*", "subtopic": "*", **data}
        ended = []
        for subscription in actor.subscriptions:
            by_id = set(data) == {"SubscriptionId"} and (await subscription.ready).id == data["SubscriptionId"]
            if by_id or (data and len(parts) == 3 and subscription.pattern == "/".join(map(str, parts.values()))):
                ended.append(subscription)
        if not ended:
            raise Unplayable(SURFACE)
        for subscription in ended:
            actor.subscriptions.remove(subscription)
            subscription.unsubscribe()
        # The client takes the reply itself. This one shows that the broker has handled it.
        await actor.open.applications()
        actor.outcomes.append({"inReplyTo": id, "data": {"Success": True, "ErrorMessage": None}})

    async def _expect(self, actors: tuple[Actor, ...], expected: Envelope, *, among: bool = False) -> None:
        triple = "/".join(str(expected.get(key)) for key in ("channel", "topic", "subtopic"))
        if triple == "Broker/Application/Unregister":
            return
        commands = ("Application/List", "Application/SetState", "Message/Receipt", "Message/Explain")
        answers = "source" not in expected and "Broker/" not in triple
        outcome = "inReplyTo" in expected or "more" in expected or answers
        outcome |= triple.startswith("Broker/Subscription/") or triple.removeprefix("Broker/") in commands
        if triple == "Broker/Request/Cancelled":
            outcome, expected = False, {key: expected[key] for key in ("channel", "topic", "subtopic", "inReplyTo")}
        if outcome:
            keys = ("inReplyTo", "more")
            wanted = {"inReplyTo": None, **{key: expected[key] for key in keys if expected.get(key)}}
            wanted["data"] = expected.get("data", expected.get("message"))
            if isinstance(wanted["data"], dict):
                # A desk does not show how many answered: it shows the answers.
                wanted["data"].pop("Answered", None)
        else:
            wanted = {key: "<any>" if key == "requestId" else value for key, value in expected.items()}

        def find() -> bool:
            for actor in actors:
                found = actor.outcomes if outcome else actor.deliveries
                for at, message in enumerate(found if among or outcome else found[:1]):
                    if "requestId" not in wanted and "..." not in wanted:
                        # The client gives each request an id.
                        message = {key: value for key, value in message.items() if key != "requestId"}
                    if self._names.matches(wanted, message):
                        del found[at]
                        return True
            return False

        try:
            async with asyncio.timeout(WAIT - 1):
                while not find():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"{wanted} is not among {self._all()}") from None

    async def _settle(self) -> None:
        """Waits until everything that was sent is done. Twice: the second time, what the first one's order left out."""
        for _ in range(2):
            for actor in self._actors.values():
                if actor.desk is not None and actor.desk.state == "open" and not actor.gone:
                    await actor.desk.applications()


def _receipt(receipt: Receipt) -> Envelope:
    data: Envelope = {"Success": True, "ErrorMessage": None, "Receivers": receipt.receivers}
    more = {"Offset": receipt.offset, "Epoch": receipt.epoch, "Hint": receipt.hint}
    data.update((key, value) for key, value in more.items() if value is not None)
    if receipt.duplicate:
        data["Duplicate"] = True
    return data


def _subscribed(reply: Subscribed) -> Envelope:
    data: Envelope = {"Success": True, "ErrorMessage": None, "SubscriptionId": reply.id}
    more = {
        "Hint": reply.hint,
        "Recovered": reply.recovered,
        "RecoverReason": reply.recover_reason,
        "Replayed": reply.replayed,
        "Epoch": reply.epoch,
        "Offset": reply.offset,
        "Narrowed": reply.narrowed or None,
    }
    data.update((key, value) for key, value in more.items() if value is not None)
    return data


def _gathered(found: Any) -> Envelope:
    rows = [{"Source": it.source, "ErrorCode": it.code} for it in found.failed]
    return {"Success": True, "ErrorMessage": None, "Expected": found.expected, "Failed": rows}


def _applications(found: Any) -> Envelope:
    rows = [
        {
            "Source": it.source,
            "User": it.user,
            "Since": it.since.isoformat(),
            "Sessions": it.sessions,
            "State": it.state,
        }
        for it in found
    ]
    return {"Success": True, "ErrorMessage": None, "Applications": rows}
