#!/usr/bin/env python3
"""An adapter: answers Crm/Contact/Find, and publishes Crm/Contact/Found.

    python3 -m venv venv && venv/bin/pip install websockets
    venv/bin/python examples/adapter.py [ws://127.0.0.1:7420/ws]
    switchboard request Crm Contact Find '"+49301234"' --source me

A broker with auth.mode = "tokens" needs a token: set SWITCHBOARD_TOKEN. docs/guides/adapter.md explains the rest.
"""

import asyncio
import json
import os
import random
import sys

import websockets

CONTACTS = {"+49301234": "Ada Lovelace"}  # in real life, a system to ask
# Close codes after which a person has to change something (docs/errors.md).
FINAL = {4401: "UNAUTHENTICATED", 4403: "FORBIDDEN", 4409: "REPLACED", 4410: "KICKED"}


async def send(socket, channel, topic, subtopic, **more):
    await socket.send(json.dumps({"channel": channel, "topic": topic, "subtopic": subtopic, **more}))


async def answer(socket, request):
    number = request.get("data")
    name = CONTACTS.get(number) if isinstance(number, str) else None
    if name is None:
        data = {"Success": False, "ErrorCode": "CONTACT_NOT_FOUND", "ErrorMessage": "no contact has this number"}
    else:
        data = {"Success": True, "ErrorMessage": None, "Name": name}
    try:
        # inReplyTo makes it a reply, which goes to the requester only.
        await send(socket, "Crm", "Contact", "Find", inReplyTo=request["id"], data=data)
        if name is not None:
            # Without inReplyTo it is an event, for the applications of the user who asked.
            await send(socket, "Crm", "Contact", "Found", user=request["user"], data={"Name": name})
    except websockets.ConnectionClosed:
        pass  # The request has ended with the connection.


async def serve(socket, state):
    """Serves one connection until it is closed."""
    token = os.environ.get("SWITCHBOARD_TOKEN")
    await send(socket, "Broker", "Application", "Register", source="crm", data={"token": token})
    running = set()
    async for text in socket:
        message = json.loads(text)
        data = message.get("data")
        match message["channel"], message["topic"], message["subtopic"]:
            case "Broker", _, "Register" | "Subscribe" | "Error" if not data["Success"]:
                print(f"{data['ErrorCode']}: {data['ErrorMessage']}", file=sys.stderr)
            case "Broker", "Application", "Register":
                state["pause"] = 0.5
                pattern = {"channel": "Crm", "topic": "Contact", "subtopic": "Find", "role": "handler"}
                await send(socket, "Broker", "Subscription", "Subscribe", data=pattern)
            case "Broker", "Subscription", "Subscribe":
                print("answering Crm/Contact/Find", flush=True)
            case "Broker", "Connection", "Draining":
                state["restart"] = data["ReconnectAfterMs"] / 1000
            case "Crm", "Contact", "Find":
                # A task of its own, so that a slow answer does not delay the next one.
                task = asyncio.create_task(answer(socket, message))
                running.add(task)
                task.add_done_callback(running.discard)


async def main(url):
    state = {"pause": 0.5}
    while True:
        state["restart"] = None
        code, reason = 1006, ""
        try:
            async with websockets.connect(url) as socket:
                try:
                    await serve(socket, state)
                finally:
                    code, reason = socket.close_code, socket.close_reason
        except (OSError, websockets.WebSocketException) as error:
            reason = reason or error
        if code in FINAL:
            sys.exit(f"stopped ({code} {FINAL[code]}): {reason}")
        print(f"not connected ({code}): {reason}", file=sys.stderr, flush=True)
        if code == 1012 and state["restart"] is not None:
            # The broker restarts, and has given each of its clients another time.
            await asyncio.sleep(state["restart"])
        else:
            await asyncio.sleep(state["pause"] * random.random())
            state["pause"] = min(state["pause"] * 2, 30)


try:
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7420/ws"))
except KeyboardInterrupt:
    pass
