"""What happens to messages when a connection is cut, or the broker is restarted."""

from __future__ import annotations

import asyncio

import pytest

from switchboard_client import Back, Desk, Last, Message, Request, SwitchboardError, connect

from .support import broker, fake_broker, proxy, scenario, soon, until

HISTORY = """
[auth]
mode = "open"
[admin]
listen = []
[channels.Sales]
history = { size = 10000, ttl = "10m", durable = true }
"""


def reports(desk: Desk) -> list[Back]:
    """Returns the list of what reconnections mean, which grows."""
    backs: list[Back] = []
    desk.on("back", backs.append)
    return backs


@scenario
async def test_a_cut_connection_loses_nothing_and_repeats_nothing() -> None:
    count, received = 600, []
    async with broker() as running, proxy(running.port) as left, proxy(running.port) as right:
        async with connect("phone", url=left.url) as phone, connect("screen", url=right.url) as screen:
            backs = [reports(phone), reports(screen)]

            def take(event: Message[int]) -> None:
                received.append(event.data)
                if event.data % 200 == 150:
                    right.cut()

            await soon(screen.subscribe("Sales/Call/Ring", take).ready)

            async def send(number: int) -> None:
                await phone.publish("Sales/Call/Ring", number)
                if number % 200 == 20:
                    left.cut()

            await phone.opened()
            for start in range(0, count, 20):
                await soon(asyncio.gather(*(send(number) for number in range(start, start + 20))))
            await until(lambda: len(received) >= count, "all events")
            await soon(screen.opened())
            await screen.applications()
    assert received == list(range(count))
    assert [{back.how for back in one} for one in backs] == [{"resumed"}, {"resumed"}]


@scenario
async def test_a_request_and_its_handler_survive_a_cut_connection() -> None:
    async with broker() as running, proxy(running.port) as left, proxy(running.port) as right:
        async with connect("phone", url=left.url) as phone, connect("crm", url=right.url) as crm:
            asked, go_on = asyncio.Event(), asyncio.Event()

            @crm.handle("Crm/Contact/Find")
            async def find(request: Request[str]) -> str:
                asked.set()
                await go_on.wait()
                return request.data.upper()

            await crm.opened()
            asking = asyncio.create_task(phone.request("Crm/Contact/Find", "ada", timeout=15))
            await soon(asked.wait())
            left.cut()
            right.cut()
            go_on.set()
            assert await soon(asking) == "ADA"
            assert find.pattern == "Crm/Contact/Find"


@scenario
async def test_a_restarted_broker_means_recovered_with_a_durable_channel_and_lost_without() -> None:
    async with broker(HISTORY) as running:
        async with connect("phone", url=running.url) as phone, connect("screen", url=running.url) as screen:
            backs, sales, other = reports(screen), [], []
            await soon(screen.subscribe("Sales/Call/*", lambda event: sales.append(event.data)).ready)
            await phone.publish("Sales/Call/Ring", 1)
            await until(lambda: sales == [1], "the first event")
            await running.restart()
            await phone.publish("Sales/Call/Ring", 2)
            await until(lambda: len(backs) == 1 and sales == [1, 2], "the event after the restart")
            assert (backs[0].how, backs[0].patterns) == ("recovered", ())

            await soon(screen.subscribe("Phone/Call/*", lambda event: other.append(event.data)).ready)
            await running.restart()
            await until(lambda: len(backs) == 2, "the second report")
            assert (backs[1].how, backs[1].patterns) == ("lost", ("Phone/Call/*",))
            await phone.publish("Phone/Call/Ring", 3)
            await until(lambda: other == [3], "an event of the subscription that was made again")
            assert sales == [1, 2]


@scenario
async def test_recover_begins_with_the_last_events() -> None:
    async with broker(HISTORY) as running, connect("phone", url=running.url) as phone:
        for number in range(10):
            await phone.publish("Sales/Call/Ring", number)
        async with connect("screen", url=running.url) as screen:
            events = screen.events("Sales/Call/*", recover=Last(3))
            assert (await soon(events.ready)).replayed == 3
            await phone.publish("Sales/Call/Ring", 10)
            found = [await soon(anext(events)) for _ in range(4)]
            assert [event.data for event in found] == [7, 8, 9, 10]
            assert [event.replayed for event in found] == [True, True, True, False]


@scenario
async def test_an_event_with_once_is_sent_again_in_a_new_session_and_delivered_once() -> None:
    async with broker(HISTORY) as running, proxy(running.port) as through:
        async with (
            connect("phone", url=through.url, resume=False) as phone,
            connect("screen", url=running.url) as screen,
        ):
            received: list[int] = []
            await soon(screen.subscribe("Sales/Call/*", lambda event: received.append(event.data)).ready)
            await phone.opened()
            sending = [asyncio.create_task(phone.publish("Sales/Call/Ring", n, once=True)) for n in range(20)]
            await until(lambda: received, "the first event")
            through.cut()
            receipts = await soon(asyncio.gather(*sending))
            assert received == list(range(20))
            assert [it.offset for it in receipts] == list(range(1, 21))


@scenario
async def test_what_was_sent_in_a_session_that_is_gone_is_lost_and_what_was_not_is_sent() -> None:
    async with fake_broker() as fake, connect("phone", url=fake.url) as phone:
        peer, register = await fake.session(ResumeToken="token-1", GraceSeconds=30, Resumed=False)
        assert register["data"]["resume"] is True
        await phone.opened()
        sent = asyncio.create_task(phone.request("Crm/Contact/Find", 1))
        await peer.expect("Crm/Contact/Find")
        peer.drop()
        await until(lambda: phone.state == "connecting", "the lost connection")
        kept = asyncio.create_task(phone.request("Crm/Contact/Find", 2))
        peer, register = await fake.session(ResumeToken="token-2", Resumed=False, ResumeReason="UNKNOWN")
        assert register["data"]["resume"] == {"token": "token-1", "received": 0}
        with pytest.raises(SwitchboardError) as lost:
            await soon(sent)
        assert lost.value.code == "LOST"
        request = await peer.expect("Crm/Contact/Find")
        assert request["data"] == 2
        await peer.say("Crm/Contact/Find", inReplyTo=request["id"], data="found")
        assert await soon(kept) == "found"
        peer.drop()


@scenario
async def test_what_the_broker_has_not_taken_is_sent_again_after_a_resume() -> None:
    async with fake_broker() as fake, connect("phone", url=fake.url) as phone:
        peer, _ = await fake.session(ResumeToken="token-1", Resumed=False)
        await phone.opened()
        sending = [asyncio.create_task(phone.publish("Phone/Call/Ring", number)) for number in range(3)]
        for _ in sending:
            await peer.expect("Phone/Call/Ring")
        peer.drop()
        peer, _ = await fake.session(ResumeToken="token-2", Resumed=True, Replayed=0, Received=1)
        again = [await peer.expect("Phone/Call/Ring") for _ in range(2)]
        assert [it["data"] for it in again] == [1, 2]
        await peer.say("Broker/Message/Receipt", inReplyTo=again[1]["id"], data={"Success": True, "Receivers": 7})
        assert (await soon(sending[2])).receivers == 7
        for task in sending[:2]:
            task.cancel()
        peer.drop()


@scenario
async def test_with_fail_a_message_is_refused_while_the_desk_is_not_open() -> None:
    async with fake_broker() as fake, connect("phone", url=fake.url, when_away="fail") as phone:
        with pytest.raises(SwitchboardError) as refused:
            await phone.publish("Phone/Call/Ring", 1)
        assert (refused.value.code, refused.value.retryable) == ("AWAY", True)


@scenario
async def test_with_keep_messages_are_kept_within_a_bound_and_sent_when_the_session_opens() -> None:
    async with fake_broker() as fake:
        async with connect("phone", url=fake.url) as phone:
            peer = await fake.connection()
            kept = [asyncio.create_task(phone.publish("Phone/Call/Ring", number)) for number in range(1001)]
            await until(lambda: kept[1000].done(), "the refusal of the last one")
            refusal = kept[1000].exception()
            assert isinstance(refusal, SwitchboardError) and refusal.code == "OVERFLOW"
            # Cancelled before they are sent, so they never are.
            kept[0].cancel()
            with pytest.raises(SwitchboardError) as late:
                kept[1].cancel()
                await asyncio.wait(kept[:2])
                await phone.request("Crm/Contact/Find", timeout=0.05)
            assert late.value.code == "REQUEST_TIMEOUT"
            await peer.register()
            sent = [(await peer.expect("Phone/Call/Ring"))["data"] for _ in range(999 - 1)]
            assert sent == list(range(2, 1000))
            peer.drop()
        outcomes = await soon(asyncio.gather(*kept, return_exceptions=True))
        assert all(isinstance(outcome, BaseException) for outcome in outcomes)
