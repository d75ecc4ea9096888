#!/usr/bin/env python3
"""An adapter: answers Crm/Contact/Find, and publishes Crm/Contact/Found for whoever wants to hear it.

    python3 -m venv venv && venv/bin/pip install websockets
    venv/bin/python examples/adapter.py [ws://127.0.0.1:7420/ws]
    switchboard request Crm Contact Find '"+49301234"' --source me

A broker with auth.mode = "tokens" wants a token: SWITCHBOARD_TOKEN holds it. docs/guides/adapter.md explains the rest.
"""

import asyncio
import json
import os
import sys

import websockets

CONTACTS = {"+49301234": "Ada Lovelace"}  # in real life, a system to ask


async def send(socket, channel, topic, subtopic, **more):
    await socket.send(json.dumps({"channel": channel, "topic": topic, "subtopic": subtopic, **more}))


def check(reply):
    if not reply["data"]["Success"]:
        sys.exit(f"{reply['data']['ErrorCode']}: {reply['data']['ErrorMessage']}")


async def answer(socket, request):
    number = request.get("data")
    name = CONTACTS.get(number) if isinstance(number, str) else None
    if name is None:
        data = {"Success": False, "ErrorCode": "CONTACT_NOT_FOUND", "ErrorMessage": "no contact has this number"}
    else:
        data = {"Success": True, "ErrorMessage": None, "Name": name}
    # inReplyTo makes it a reply: it goes to the asker alone.
    await send(socket, "Crm", "Contact", "Find", inReplyTo=request["id"], data=data)
    if name is not None:
        # Without inReplyTo it is an event, for the applications of the user who asked.
        await send(socket, "Crm", "Contact", "Found", user=request["user"], data={"Name": name})


async def serve(socket):
    token = os.environ.get("SWITCHBOARD_TOKEN")
    await send(socket, "Broker", "Application", "Register", source="crm", data={"token": token})
    async for text in socket:
        message = json.loads(text)
        match message["channel"], message["topic"], message["subtopic"]:
            case "Broker", "Application", "Register":
                check(message)
                pattern = {"channel": "Crm", "topic": "Contact", "subtopic": "Find", "role": "handler"}
                await send(socket, "Broker", "Subscription", "Subscribe", data=pattern)
            case "Broker", "Subscription", "Subscribe":
                check(message)
                print("answering Crm/Contact/Find", flush=True)
            case "Crm", "Contact", "Find":
                await answer(socket, message)
            case "Broker", "Message", "Error":
                print(f"{message['data']['ErrorCode']}: {message['data']['ErrorMessage']}", file=sys.stderr)


async def main(url):
    # Reconnects by itself, with a growing pause.
    async for socket in websockets.connect(url):
        try:
            await serve(socket)
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            if code in (4401, 4403):
                sys.exit(f"closed with {code}")


try:
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7420/ws"))
except KeyboardInterrupt:
    pass
