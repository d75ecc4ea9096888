"""Why a process cannot connect, and that nothing secret is printed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request as Handshake
from websockets.http11 import Response

from switchboard_client import Credentials, Desk, SwitchboardError, Will, connect

from .support import broker, fake_broker, scenario, soon, until

SECRET = "very-secret-token"


async def problem(desk: Desk) -> SwitchboardError:
    """Returns why a desk is not open."""
    await until(lambda: desk.problem, "the reason")
    assert desk.problem is not None
    return desk.problem


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:7420/ws",
        "ws://",
        "ws://127.0.0.1:port/ws",
        "ws://alice:secret@127.0.0.1:7420/ws",
        "ws://127.0.0.1:7420/ws?token=secret",
    ],
)
def test_an_address_that_cannot_be_one_is_refused_at_once(url: str) -> None:
    with pytest.raises(SwitchboardError) as bad:
        connect("crm", url=url)
    assert bad.value.code == "BAD_ADDRESS" and bad.value.cure and "secret" not in str(bad.value)


def refuses(status: HTTPStatus, body: str) -> Callable[[ServerConnection, Handshake], Response]:
    """Returns a server's answer to every request."""
    return lambda connection, _: connection.respond(status, body)


def only_http(connection: ServerConnection, handshake: Handshake) -> Response:
    """A proxy that lets no WebSocket pass."""
    if handshake.path == "/":
        return connection.respond(HTTPStatus.OK, '{"server":"switchboard","version":"1","protocol":1}')
    return connection.respond(HTTPStatus.UPGRADE_REQUIRED, "no")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refuses(HTTPStatus.MISDIRECTED_REQUEST, "this Host is not served"), "HOST_REFUSED"),
        (refuses(HTTPStatus.FORBIDDEN, "this Origin is not allowed"), "ORIGIN_REFUSED"),
        (refuses(HTTPStatus.FORBIDDEN, "programs of this operating-system user may not connect"), "NEIGHBOUR_REFUSED"),
        (refuses(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"), "BUSY"),
        (refuses(HTTPStatus.OK, "hello"), "NOT_SWITCHBOARD"),
        (refuses(HTTPStatus.NOT_FOUND, "<html>"), "NOT_SWITCHBOARD"),
        (only_http, "UPGRADE_BLOCKED"),
    ],
)
def test_a_refused_handshake_has_a_code_and_a_cure(
    answer: Callable[[ServerConnection, Handshake], Response], code: str
) -> None:
    @scenario
    async def play() -> None:
        async def nothing(_: ServerConnection) -> None: ...

        async with serve(nothing, "127.0.0.1", 0, process_request=answer) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect("crm", url=f"ws://127.0.0.1:{port}/ws") as desk:
                found = await problem(desk)
                assert (found.code, bool(found.cure), desk.state) == (code, True, "connecting"), found

    play()


@scenario
async def test_the_real_broker_refuses_a_name_that_it_does_not_serve() -> None:
    async with broker() as running:

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # No name server is asked: the address is the broker's, the Host is not.
            there, back = await asyncio.open_connection("127.0.0.1", running.port)
            head = await reader.readuntil(b"\r\n\r\n")
            back.write(head.replace(b"Host: 127.0.0.1", b"Host: desk.example.com"))
            writer.write(await there.read())
            await writer.drain()
            for one in (writer, back):
                one.close()

        server = await asyncio.start_server(forward, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with connect("crm", url=f"ws://127.0.0.1:{port}/ws") as desk:
            found = await problem(desk)
            assert found.code == "HOST_REFUSED" and "http.allowed_hosts" in found.message
        server.close()


@scenario
async def test_nobody_listens_and_the_second_address_is_tried_at_once() -> None:
    async with broker() as running, connect("crm", url=["ws://127.0.0.1:1/ws", running.url]) as desk:
        await soon(desk.opened())
    async with connect("crm", url="ws://127.0.0.1:1/ws") as desk:
        assert (await problem(desk)).code == "BROKER_DOWN"


@scenario
async def test_another_version_of_the_protocol_is_a_problem() -> None:
    async with fake_broker() as fake, connect("crm", url=fake.url) as desk:
        await fake.session(Protocol=2)
        assert (await problem(desk)).code == "VERSION"


@scenario
async def test_nothing_secret_is_printed_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    printed: list[object] = []

    def log(level: str, text: str) -> None:
        printed.append((level, text))

    async with fake_broker() as fake:
        will = Will("Phone/Call/Gone", SECRET)
        desk = connect("crm", url=fake.url, token=SECRET, will=will, log=log)
        for event in ("state", "back", "error"):
            desk.on(event, lambda value: printed.append(repr(value)))
        async with desk:
            handler = desk.handle("Crm/Contact/Find")(lambda request: printed.append(repr(request)))
            peer, register = await fake.session(ResumeToken=SECRET, Resumed=False)
            assert register["data"]["token"] == SECRET
            await peer.answer(await peer.expect("Broker/Subscription/Subscribe"), SubscriptionId="1")
            await soon(handler.ready)
            await peer.say("Crm/Contact/Find", id="1", data=SECRET, timeout=1000)
            await peer.expect("Crm/Contact/Find")
            asking = asyncio.create_task(desk.credentials())
            request = await peer.expect("Salesforce/User/FetchCredentials")
            row = {"Username": "1", "Password": SECRET, "Extension": "2", "ADFSUsername": ""}
            await peer.say("Salesforce/User/FetchCredentials", inReplyTo=request["id"], data=row)
            found = await soon(asking)
            assert isinstance(found, Credentials) and found.password == SECRET
            asking = asyncio.create_task(desk.credentials())
            request = await peer.expect("Salesforce/User/FetchCredentials")
            failed = {**row, "Success": False, "ErrorCode": "UPSTREAM_REJECTED", "ErrorMessage": "no"}
            await peer.say("Salesforce/User/FetchCredentials", inReplyTo=request["id"], data=failed)
            with pytest.raises(SwitchboardError) as refused:
                await soon(asking)
            assert refused.value.data == failed
            await peer.say("Broker/Connection/Expiring", data={"ExpiresInSeconds": 60})
            await peer.close(4409, "replaced")
            await until(lambda: desk.state == "closed", "the end")
            printed += [repr(desk), repr(found), repr(refused.value), str(refused.value), repr(handler), repr(will)]
            printed += [repr(desk._driver.settings), repr(desk._driver._link)]
    # What the broker of the test logs is not the client's.
    logged = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    everything = "\n".join(map(str, [*printed, *logged]))
    assert "crm" in everything and "UPSTREAM_REJECTED" in everything
    assert SECRET not in everything
