"""Requests and their handlers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from switchboard_client import Answer, Request, SwitchboardError, Will, connect

from .support import broker, fake_broker, scenario, soon, until

FIND = "Crm/Contact/Find"


@scenario
async def test_a_handler_answers_refuses_and_reports_progress() -> None:
    async with broker() as running, connect("crm", url=running.url) as crm, connect("phone", url=running.url) as phone:

        @crm.handle(FIND)
        async def find(request: Request[str]) -> dict[str, Any]:
            assert (request.source, request.user, request.gather) == ("phone", "local", False)
            before = request.deadline
            await request.progress("looking")
            assert request.deadline >= before
            if request.data == "nobody":
                raise SwitchboardError("CONTACT_NOT_FOUND", "no contact has this number", data={"Number": 1})
            return {"Name": "Ada", "Id": request.request_id is not None}

        @crm.handle("Crm/Contact/Login")
        async def login(request: Request[None]) -> None:
            await request.answer({"Success": True}, subtopic="LoginSuccess", payload="message")

        @crm.handle("Crm/Contact/Legacy")
        async def legacy(request: Request[None]) -> None:
            await request.answer({"Success": False})

        # A handler need not be a coroutine.
        crm.handle("Crm/Contact/Echo")(lambda request: request.data)
        await crm.opened()
        parts: list[object] = []
        assert await phone.request(FIND, "1", on_progress=parts.append) == {"Name": "Ada", "Id": True}
        assert parts == ["looking"]
        with pytest.raises(SwitchboardError) as refused:
            await phone.request(FIND, "nobody")
        error = refused.value
        assert (error.code, error.message, error.retryable) == (
            "CONTACT_NOT_FOUND",
            "no contact has this number",
            False,
        )
        assert error.data == {
            "Number": 1,
            "Success": False,
            "ErrorCode": "CONTACT_NOT_FOUND",
            "ErrorMessage": error.message,
        }
        assert error.in_reply_to is not None
        assert await phone.request("Crm/Contact/Login") == {"Success": True}
        with pytest.raises(SwitchboardError) as refused:
            await phone.request("Crm/Contact/Legacy")
        assert refused.value.code == "HANDLER_FAILED"
        assert await phone.request("Crm/Contact/Echo", [1, None, "ä"]) == [1, None, "ä"]


@scenario
async def test_an_exception_in_a_handler_answers_internal_without_its_text() -> None:
    async with broker() as running, connect("crm", url=running.url) as crm, connect("phone", url=running.url) as phone:
        errors: list[SwitchboardError] = []
        crm.on("error", errors.append)

        @crm.handle(FIND)
        async def find(request: Request[Any]) -> object:
            if request.data == "not JSON":
                return object()
            raise KeyError("the secret of " + str(request.data))

        await crm.opened()
        for data in ("alice", "not JSON"):
            with pytest.raises(SwitchboardError) as failed:
                await phone.request(FIND, data)
            assert failed.value.code == "INTERNAL"
            assert "secret" not in str(failed.value)
        assert [error.code for error in errors] == ["INTERNAL", "INVALID_ENVELOPE"]
        assert isinstance(errors[0].__cause__, KeyError)
        assert "secret" not in str(errors[0])
        assert find.pattern == FIND


@scenario
async def test_cancelling_the_caller_cancels_the_handler() -> None:
    async with broker() as running, connect("crm", url=running.url) as crm, connect("phone", url=running.url) as phone:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @crm.handle(FIND)
        async def find(_: Request[Any]) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        await crm.opened()
        asking = asyncio.create_task(phone.request(FIND))
        await soon(begun.wait())
        asking.cancel()
        # Without the cancellation it would be the time limit of 10 s that ends the handler.
        async with asyncio.timeout(5):
            await cancelled.wait()

        # A requester that leaves does the same.
        begun.clear()
        cancelled.clear()
        async with connect("other", url=running.url) as other:
            asking = asyncio.create_task(other.request(FIND))
            await soon(begun.wait())
        async with asyncio.timeout(5):
            await cancelled.wait()
        with pytest.raises(SwitchboardError) as closed:
            await asking
        assert closed.value.code == "CLOSED"
        assert find.pattern == FIND


@scenario
async def test_a_handler_ends_at_the_deadline_which_moves_with_progress() -> None:
    async with broker() as running, connect("crm", url=running.url) as crm, connect("phone", url=running.url) as phone:
        cancelled = asyncio.Event()

        @crm.handle(FIND)
        async def find(request: Request[Any]) -> None:
            try:
                for part in range(4):
                    await request.progress(part)
                    await asyncio.sleep(0.15)
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        await crm.opened()
        parts: list[object] = []
        with pytest.raises(SwitchboardError) as late:
            await phone.request(FIND, timeout=0.3, on_progress=parts.append)
        assert (late.value.code, late.value.retryable, parts) == ("REQUEST_TIMEOUT", True, [0, 1, 2, 3])
        await soon(cancelled.wait())
        assert find.pattern == FIND


@scenario
async def test_gather_returns_the_answers_of_all_handlers_with_their_sources() -> None:
    async with broker() as running, connect("desk", url=running.url) as desk:
        async with connect("east", url=running.url) as east, connect("west", url=running.url) as west:

            @east.handle(FIND)
            async def find_east(request: Request[str]) -> str:
                assert request.gather
                return request.data + " east"

            @west.handle(FIND)
            async def find_west(_: Request[str]) -> str:
                raise SwitchboardError("NOT_TODAY", "closed")

            await east.opened()
            await west.opened()
            seen: list[Answer[str]] = []
            found = await desk.gather(FIND, "ada", on_answer=seen.append)
            assert [(it.source, it.data) for it in found.answers] == [("east", "ada east")]
            assert (found.expected, [(it.source, it.code) for it in found.failed]) == (2, [("west", "NOT_TODAY")])
            assert tuple(seen) == found.answers
        nobody = await desk.gather(FIND, "ada")
        assert (nobody.answers, nobody.expected, nobody.failed) == ((), 0, ())


@scenario
async def test_concurrency_limits_the_calls_at_a_time() -> None:
    async with broker() as running, connect("crm", url=running.url) as crm, connect("phone", url=running.url) as phone:
        at_once, most = 0, 0

        @crm.handle(FIND, concurrency=3)
        async def find(request: Request[int]) -> int:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01)
            at_once -= 1
            return request.data

        await crm.opened()
        found = await asyncio.gather(*(phone.request(FIND, number) for number in range(20)))
        assert (found, most) == (list(range(20)), 3)
        assert find.pattern == FIND


@scenario
async def test_a_command_without_an_answer_gets_a_receipt() -> None:
    async with broker() as running, connect("crm", url=running.url) as crm, connect("phone", url=running.url) as phone:
        shown: list[object] = []
        crm.handle("Crm/Note/Show", answers=False)(lambda request: shown.append(request.data))
        await crm.opened()
        await phone.publish("Crm/Note/Show", "call back")
        await until(lambda: shown == ["call back"], "the command")


@scenario
async def test_a_message_over_the_brokers_limit_is_not_sent() -> None:
    async with broker() as running, connect("crm", url=running.url) as crm, connect("phone", url=running.url) as phone:
        crm.handle(FIND)(lambda request: "x" * (2 << 20))
        errors: list[SwitchboardError] = []
        crm.on("error", errors.append)
        await phone.opened()
        with pytest.raises(SwitchboardError) as refused:
            await phone.request(FIND, "x" * (2 << 20))
        assert refused.value.code == "TOO_LARGE"
        await crm.opened()
        with pytest.raises(SwitchboardError) as refused:
            await phone.request(FIND, "x")
        assert (refused.value.code, errors[0].code, phone.state) == ("TOO_LARGE", "TOO_LARGE", "open")


@scenario
async def test_a_request_for_a_handler_that_has_stopped_is_refused() -> None:
    async with fake_broker() as fake, connect("crm", url=fake.url) as crm:
        handler = crm.handle(FIND)(lambda request: "found")
        peer, _ = await fake.session()
        subscribe = await peer.expect("Broker/Subscription/Subscribe")
        await peer.answer(subscribe, SubscriptionId="1")
        await soon(handler.ready)
        handler.unsubscribe()
        await peer.say(FIND, id="late", source="phone", user="local", timeout=1000)
        await peer.expect("Broker/Subscription/Unsubscribe")
        answer = await peer.expect(FIND)
        assert (answer["inReplyTo"], answer["data"]["ErrorCode"]) == ("late", "HANDLER_GONE")
        peer.drop()


@scenario
async def test_handlers_and_subscriptions_can_be_made_before_the_block_is_entered() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone:
        rings: list[object] = []
        crm = connect("crm", url=running.url)
        crm.handle(FIND)(lambda request: "found")
        crm.subscribe("Phone", lambda event: rings.append(event.data))
        async with crm:
            await crm.opened()
            assert await phone.request(FIND) == "found"
            await phone.publish("Phone/Call/Ring", 1)
            await until(lambda: rings == [1], "the event")
        with pytest.raises(SwitchboardError):
            async with crm:
                pass


@scenario
async def test_the_commands_of_a_desk() -> None:
    async with broker() as running:
        who = ["--username", "1245456", "--extension", "5051"]
        await running.run("credentials", "set", "alice@example.com", *who, stdin=b"acq@123\n")
        alice = "alice@example.com"
        async with (
            connect("gadget", url=running.url, user=alice) as desk,
            connect("crm", url=running.url, user=alice) as crm,
        ):
            crm.subscribe("Phone/Call/Ring", lambda event: None)
            await crm.opened()
            found = await desk.credentials()
            assert (found.username, found.password, found.extension) == ("1245456", "acq@123", "5051")
            await crm.set_state("asleep")
            rows = {it.source: it for it in await desk.applications()}
            assert (rows["crm"].state, rows["gadget"].state, rows["crm"].user) == ("asleep", "active", alice)
            assert rows["crm"].since.tzinfo is not None
            answer = await desk.explain("Phone/Call/Ring", to="crm")
            assert answer["Verdict"] == "EVENT" and answer["Receives"][0]["Source"] == "crm"
            assert desk.session is not None and desk.session.user == alice


@scenario
async def test_a_will_is_published_when_the_program_dies_and_not_when_it_leaves() -> None:
    async with broker() as running, connect("watch", url=running.url) as watch:
        gone: list[object] = []
        await soon(watch.subscribe("Phone/Agent/Gone", lambda event: gone.append(event.data)).ready)
        for dies in (False, True):
            will = Will("Phone/Agent/Gone", {"dies": dies})
            async with connect("agent", url=running.url, will=will, resume=False) as agent:
                await agent.opened()
                if dies:
                    link = agent._driver._link
                    assert link is not None
                    link.socket.transport.abort()
                    await until(lambda: gone, "the will")
        assert gone == [{"dies": True}]


@scenario
async def test_an_option_that_does_not_exist_is_refused() -> None:
    desk = connect("crm")
    with pytest.raises(TypeError, match="usr"):
        await desk.publish("Phone/Call/Ring", usr="alice@example.com")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="usr"):
        await desk.request("Phone/Call/Dial", usr="alice@example.com")  # type: ignore[call-arg]
