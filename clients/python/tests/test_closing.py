"""Close codes, tokens and renewal, against a broker that the test plays."""

from __future__ import annotations

import asyncio
import time

import pytest

from switchboard_client import Desk, StateChange, SwitchboardError, Why, connect

from .support import broker, fake_broker, scenario, soon, until

FIXED = "fixed-secret"


async def stopped(desk: Desk) -> SwitchboardError:
    """Returns why a desk has stopped."""
    await until(lambda: desk.state == "closed", "the end of the desk")
    assert desk.problem is not None
    return desk.problem


@pytest.mark.parametrize(
    ("code", "problem"), [(4410, "KICKED"), (4409, "REPLACED"), (4403, "FORBIDDEN"), (4401, "UNAUTHENTICATED")]
)
def test_a_final_close_stops_the_desk_and_says_why(code: int, problem: str) -> None:
    @scenario
    async def play() -> None:
        async with fake_broker() as fake, connect("crm", url=fake.url, token=FIXED) as desk:
            changes: list[StateChange] = []
            desk.on("state", changes.append)
            peer, _ = await fake.session()
            asking = asyncio.create_task(desk.request("Crm/Contact/Find"))
            await peer.expect("Crm/Contact/Find")
            events = desk.events("Phone")
            await peer.close(code, "the reason")
            found = await stopped(desk)
            assert found.code == problem and "the reason" in found.message
            for waiting in (asking, anext(events), desk.opened(), desk.publish("Phone/Call/Ring")):
                with pytest.raises(SwitchboardError) as error:
                    await soon(waiting)
                assert error.value.code in (problem, "LOST")
            assert [change.state for change in changes] == ["open", "closed"]

    play()


@scenario
async def test_the_third_refused_message_within_a_minute_stops_the_desk() -> None:
    async with fake_broker() as fake, connect("crm", url=fake.url) as desk:
        errors: list[SwitchboardError] = []
        desk.on("error", errors.append)
        for code in (1009, 1002, 1007):
            peer, _ = await fake.session(ResumeToken="t", Resumed=False)
            sending = asyncio.create_task(desk.publish("Phone/Call/Ring", code, once=True))
            await peer.expect("Phone/Call/Ring")
            if code == 1007:
                events = desk.events("Phone/Call")
            await peer.close(code, "not this one")
            with pytest.raises(SwitchboardError) as lost:
                await soon(sending)
            assert lost.value.code == "LOST" and str(code) in lost.value.message
        found = await stopped(desk)
        assert (found.code, found.retryable) == ("CLOSED", False) and "1007: not this one, three times" in found.message
        with pytest.raises(SwitchboardError) as ended:
            await soon(anext(events))
        assert ended.value.code == "CLOSED"
        assert [str(code) in error.message for code, error in zip((1009, 1002, 1007), errors, strict=True)] == [
            True
        ] * 3


@scenario
async def test_after_draining_it_waits_as_long_as_the_broker_says_from_the_close_on() -> None:
    async with fake_broker() as fake, connect("crm", url=fake.url) as desk:
        peer, _ = await fake.session()
        await peer.say("Broker/Connection/Draining", data={"ReconnectAfterMs": 400})
        await asyncio.sleep(0.2)
        await peer.close(1012, "restart")
        closed = time.monotonic()
        peer, _ = await fake.session()
        assert 0.4 <= time.monotonic() - closed < 2
        await soon(desk.opened())
        peer.drop()


@scenario
async def test_retry_connects_without_waiting_for_the_end_of_the_pause() -> None:
    async with fake_broker() as fake, connect("crm", url=fake.url) as desk:
        peer, _ = await fake.session()
        await desk.opened()
        await peer.say("Broker/Connection/Draining", data={"ReconnectAfterMs": 60_000})
        await peer.close(1012, "restart")
        await until(lambda: desk.state == "connecting", "the lost connection")
        desk.retry()
        peer, _ = await fake.session()
        await soon(desk.opened())
        peer.drop()


@scenario
async def test_a_token_provider_is_asked_before_each_registration_and_when_the_proof_expires() -> None:
    whys: list[Why] = []

    async def token(why: Why) -> str:
        whys.append(why)
        if len(whys) == 1:
            raise OSError("no key server")
        return f"token-{len(whys)}"

    async with fake_broker() as fake, connect("crm", url=fake.url, token=token) as desk:
        await until(lambda: desk.problem, "the failed provider")
        assert desk.problem is not None and desk.problem.code == "TOKEN_UNAVAILABLE"
        peer, register = await fake.session()
        assert register["data"]["token"] == "token-2"
        await peer.say("Broker/Connection/Expiring", data={"ExpiresInSeconds": 60})
        renew = await peer.expect("Broker/Application/Renew")
        assert renew["data"] == {"token": "token-3"}
        await peer.answer(renew, ExpiresInSeconds=1800)
        await peer.close(4401, "expired")
        peer, register = await fake.session()
        assert register["data"]["token"] == "token-4"
        assert whys == ["register", "register", "renew", "refused"]
        peer.drop()


@scenario
async def test_a_refused_registration_stops_or_is_tried_again() -> None:
    config = """
[auth]
mode = "tokens"
[admin]
listen = []
[[applications]]
source = "softphone"
user = "alice@example.com"
exclusive = true
token_sha256 = "d31d979db637c0b51a261fa0c4b8a116b52db1fce47e9e98ce018400ad87347e"
"""
    async with broker(config) as running:
        async with connect("softphone", url=running.url, token="guess") as desk:
            assert (await stopped(desk)).code == "UNAUTHENTICATED"
        async with connect("softphone", url=running.url) as desk:
            assert (await stopped(desk)).code == "UNAUTHENTICATED"
    async with fake_broker() as fake, connect("softphone", url=fake.url) as desk:
        for code in ("SOURCE_IN_USE", "UPSTREAM_UNAVAILABLE"):
            peer = await fake.connection()
            register = await peer.next()
            refusal = {"Success": False, "ErrorCode": code, "ErrorMessage": "not now"}
            await peer.say("Broker/Application/Register", data=refusal, inReplyTo=register.get("id"))
            await until(lambda: desk.problem is not None and desk.problem.code == code, code)  # noqa: B023
        peer, _ = await fake.session()
        await soon(desk.opened())
        peer.drop()


@scenario
async def test_closing_unregisters_and_ends_what_waits() -> None:
    async with broker() as running, connect("watch", url=running.url) as watch:
        left: list[str] = []
        await soon(watch.subscribe("Broker/Application/Left", lambda event: left.append(event.data["Source"])).ready)
        async with connect("crm", url=running.url) as crm:
            await crm.opened()
            events = crm.events("Phone")
            sending = asyncio.create_task(crm.publish("Phone/Call/Ring", 1, receipt=False))
            await asyncio.wait((sending,))
        await until(lambda: left == ["crm"], "the notice")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        with pytest.raises(SwitchboardError) as closed:
            await crm.publish("Phone/Call/Ring", 1)
        assert closed.value.code == "CLOSED" and crm.state == "closed"


@scenario
async def test_a_handler_may_close_its_desk() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone:
        async with connect("crm", url=running.url) as crm:
            closed = asyncio.Event()

            @crm.handle("Crm/Service/Stop")
            async def stop(_: object) -> None:
                await crm.close()
                closed.set()

            await crm.opened()
            with pytest.raises(SwitchboardError) as gone:
                await phone.request("Crm/Service/Stop")
            assert gone.value.code == "HANDLER_GONE"
            await soon(closed.wait())
            assert stop.pattern == "Crm/Service/Stop"
