"""A client that shares no code with switchboard: Python's `websockets`, and the documented JSON alone.

Usage: client.py URL. The broker is in open development mode and has credentials of the user agent@example.com.
"""

import asyncio
import json
import sys

import websockets

DEADLINE = 20


class Application:
    """One registered connection."""

    def __init__(self, socket):
        self.socket = socket

    async def send(self, **envelope):
        await self.socket.send(json.dumps(envelope))

    async def next(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), DEADLINE))

    async def command(self, topic, subtopic, data=None, **fields):
        await self.send(channel="Broker", topic=topic, subtopic=subtopic, data=data, **fields)
        reply = await self.next()
        assert (reply["topic"], reply["subtopic"]) == (topic, subtopic), reply
        assert reply["data"]["Success"] is True, reply
        return reply["data"]


async def connect(url, source):
    socket = await websockets.connect(url, subprotocols=["switchboard.v1"])
    assert socket.subprotocol == "switchboard.v1"
    application = Application(socket)
    data = await application.command("Application", "Register", {"user": "agent@example.com"}, source=source)
    assert data["User"] == "agent@example.com" and data["Protocol"] == 1, data
    return application


async def publish_and_receive(url):
    phone, crm = await connect(url, "softphone"), await connect(url, "crm")
    await crm.command("Subscription", "Subscribe", {"channel": "Phone", "topic": "Call"})
    payload = {"from": "+15550100", "name": "Zoë ☎ 𝄞", "nested": {"channel": "Other"}}
    await phone.send(channel="Phone", topic="Call", subtopic="Ringing", id="r1", data=payload)
    receipt = await phone.next()
    assert receipt["subtopic"] == "Receipt" and receipt["inReplyTo"] == "r1", receipt
    assert receipt["data"]["Receivers"] == 1, receipt
    event = await crm.next()
    assert event["source"] == "softphone" and event["data"] == payload, event


async def ask_and_answer(url):
    crm, phone = await connect(url, "crm"), await connect(url, "softphone")
    await phone.command("Subscription", "Subscribe",
                        {"channel": "Phone", "topic": "Call", "subtopic": "Dial", "role": "handler"})
    await crm.send(channel="Phone", topic="Call", subtopic="Dial", id="d1", data={"number": "+15550100"})
    request = await phone.next()
    assert request["requestId"] == "d1" and request["source"] == "crm", request
    await phone.send(channel="Phone", topic="Call", subtopic="Dial", inReplyTo=request["id"], data={"Success": True})
    answer = await crm.next()
    assert answer["inReplyTo"] == "d1" and answer["data"] == {"Success": True}, answer


async def fetch_credentials(url):
    gadget = await connect(url, "myapp")
    await gadget.send(channel="Salesforce", topic="User", subtopic="FetchCredentials", source="myapp")
    answer = await gadget.next()
    assert list(answer) == ["channel", "topic", "subtopic", "data"], answer
    documented = {"Username": "1245456", "Password": "acq@123", "Extension": "5051", "ADFSUsername": "",
                  "Success": True, "ErrorMessage": None}
    assert list(answer["data"].items()) == list(documented.items()), answer


async def mistakes_are_answered(url):
    gadget = await connect(url, "myapp")
    await gadget.socket.send("{")
    assert (await gadget.next())["data"]["ErrorCode"] == "INVALID_JSON"
    await gadget.socket.send(b"{}")
    assert (await gadget.next())["data"]["ErrorCode"] == "INVALID_ENVELOPE"
    await gadget.socket.close()
    assert gadget.socket.close_code == 1000


async def main(url):
    for scene in (publish_and_receive, ask_and_answer, fetch_credentials, mistakes_are_answered):
        await scene(url)
        print(scene.__name__, "ok")


asyncio.run(main(sys.argv[1]))
