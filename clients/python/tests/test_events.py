"""Events: listeners, iterators, their bounds."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from switchboard_client import Dropped, Events, Lagging, Message, SwitchboardError, connect

from .support import broker, fake_broker, scenario, soon, until

RING = "Phone/Call/Ring"


@scenario
async def test_listeners_get_each_event_once_in_order_and_coroutines_may_ask() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone, connect("crm", url=running.url) as crm:
        crm.handle("Crm/Contact/Find")(lambda request: f"owner of {request.data}")
        received: list[Message[int]] = []
        again: list[int] = []
        asked: list[str] = []

        async def ask(event: Message[int]) -> None:
            asked.append(await crm.request("Crm/Contact/Find", event.data, target="crm"))

        async with connect("screen", url=running.url) as screen:

            async def ask_crm(event: Message[int]) -> None:
                asked.append(await screen.request("Crm/Contact/Find", event.data))

            screen.subscribe("Phone/Call", received.append)
            screen.subscribe(RING, lambda event: again.append(event.data))
            screen.subscribe("Phone/*/Ring", ask_crm)
            await screen.opened()
            await crm.opened()
            for number in range(50):
                receipt = await phone.publish(RING, number, fields={"tenant": "a"})
                assert receipt.receivers == 1
            await until(lambda: len(asked) == 50, "the answers")
            assert [event.data for event in received] == again == list(range(50))
            assert sorted(asked) == sorted(f"owner of {number}" for number in range(50))
            event = received[0]
            assert (event.triple, event.channel, event.source, event.user) == (RING, "Phone", "phone", None)
            assert event.envelope["tenant"] == "a" and '"tenant":"a"' in event.text
        assert ask is not ask_crm


@scenario
async def test_retained_values_are_for_each_new_subscription() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone:
        await phone.publish("Phone/Agent/State", "ready", retain=True)
        async with connect("screen", url=running.url) as screen:
            for _ in range(2):
                events: Events[str] = screen.events("Phone/Agent/*")
                event = await soon(anext(events))
                assert (event.data, event.retained) == ("ready", True)
            await phone.publish("Phone/Agent/State", None, retain=True)


@scenario
async def test_leaving_the_loop_unsubscribes() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone:
        async with connect("screen", url=running.url) as screen:
            await screen.opened()

            async def first() -> int:
                async for event in screen.events(RING):
                    return int(event.data)
                raise AssertionError

            reading = asyncio.create_task(first())
            while (await phone.publish(RING, 7)).receivers == 0:
                await asyncio.sleep(0.01)
            assert await soon(reading) == 7
            # Long before its buffer would be full, which ends it, too.
            async with asyncio.timeout(5):
                while (await phone.publish(RING, 8)).receivers:
                    await asyncio.sleep(0.02)


@scenario
async def test_a_full_buffer_ends_the_iterator_and_nothing_else() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone:
        async with connect("screen", url=running.url) as screen:
            all_of_them: list[int] = []
            await soon(screen.subscribe(RING, lambda event: all_of_them.append(event.data)).ready)
            events: Events[int] = screen.events(RING, buffer=10)
            await soon(events.ready)
            for number in range(30):
                await phone.publish(RING, number)
            await until(lambda: len(all_of_them) == 30, "the other subscription")
            found = []
            with pytest.raises(SwitchboardError) as full:
                async for event in events:
                    found.append(event.data)
            assert (full.value.code, found) == ("OVERFLOW", list(range(10)))


@scenario
async def test_a_slow_iterator_slows_its_publishers_down_before_it_overflows() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone:
        async with connect("screen", url=running.url) as screen:
            events: Events[int] = screen.events(RING, buffer=4)
            await soon(events.ready)
            sending = asyncio.create_task(
                asyncio.wait([asyncio.create_task(phone.publish(RING, n)) for n in range(100)])
            )
            for number in range(100):
                assert (await soon(anext(events))).data == number
                await asyncio.sleep(0.001)
            await soon(sending)


@scenario
async def test_a_subscription_that_the_broker_refuses_is_reported_once() -> None:
    async with broker() as running, connect("screen", url=running.url) as screen:
        errors: list[SwitchboardError] = []
        screen.on("error", errors.append)
        awaited = screen.subscribe("Broker/Message/Receipt", lambda event: None)
        waiting = asyncio.create_task(soon(awaited.ready))
        with pytest.raises(SwitchboardError) as refused:
            await waiting
        assert refused.value.code == "RESERVED_CHANNEL"
        errors.clear()
        screen.handle("*/Call/Dial")(lambda request: None)
        await until(lambda: errors, "the error event")
        assert [error.code for error in errors] == ["INVALID_ENVELOPE"]
        with pytest.raises(SwitchboardError) as wrong:
            screen.subscribe("Phone//Ring", lambda event: None)
        assert wrong.value.code == "INVALID_ENVELOPE"


@scenario
async def test_rights_that_change_end_a_subscription_with_forbidden() -> None:
    async with fake_broker() as fake, connect("screen", url=fake.url) as screen:
        events: Events[object] = screen.events(RING)
        peer, _ = await fake.session()
        await peer.answer(await peer.expect("Broker/Subscription/Subscribe"), SubscriptionId="s1")
        data = {"SubscriptionIds": ["s1"], "Narrowed": [], "Reason": "a reload"}
        await peer.say("Broker/Subscription/Ended", data=data)
        with pytest.raises(SwitchboardError) as ended:
            await soon(anext(events))
        assert (ended.value.code, ended.value.message) == ("FORBIDDEN", "a reload")
        lagging: list[Lagging] = []
        dropped: list[Dropped] = []
        screen.on("lagging", lagging.append)
        screen.on("dropped", dropped.append)
        await peer.say("Broker/Message/Dropped", data={"Count": 3})
        keys = {"Messages": 1, "MessagesMax": 2, "Bytes": 3, "BytesMax": 4}
        await peer.say("Broker/Connection/Lagging", data=keys)
        await until(lambda: lagging and dropped, "the notices")
        assert (lagging[0].messages_max, lagging[0].bytes_max, dropped[0].count) == (2, 4, 3)
        peer.drop()


@scenario
async def test_ten_thousand_events_leave_nothing_in_memory() -> None:
    # Without its usual limit, the broker would take them at 1,000 a second.
    fast = '[auth]\nmode = "open"\n[admin]\nlisten = []\n[limits]\nrate = 100000\nburst = 100000\n'
    async with broker(fast) as running, connect("phone", url=running.url) as phone:
        async with connect("screen", url=running.url) as screen:
            received = 0

            def count(_: Message[object]) -> None:
                nonlocal received
                received += 1

            await soon(screen.subscribe(RING, count).ready)

            async def publish(events: int) -> None:
                wanted = received + events
                for _ in range(events // 100):
                    await asyncio.gather(*(phone.publish(RING, {"text": "x" * 500}) for _ in range(100)))
                await until(lambda: received == wanted, "all events")

            # Caches and buffers have their size after the first ones.
            await publish(1000)
            gc.collect()
            before = sys.getallocatedblocks()
            await publish(10_000)
            await phone.applications()
            gc.collect()
            # An event that were kept would have several blocks.
            assert sys.getallocatedblocks() - before < 5_000
