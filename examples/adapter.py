#!/usr/bin/env python3
"""An adapter: answers Crm/Contact/Find, and publishes Crm/Contact/Found.

    python3 -m venv venv && venv/bin/pip install websockets
    SWITCHBOARD_USER=alice@example.com venv/bin/python examples/adapter.py [ws://127.0.0.1:7420/ws]
    switchboard request Crm Contact Find '"+49301234"' --source me --user alice@example.com

It answers one user's applications. A broker with auth.mode = "tokens" takes the user from a token: set SWITCHBOARD_TOKEN; with
a service's token it answers all users. docs/guides/adapter.md explains the rest.
"""

import asyncio
import json
import os
import random
import sys

import websockets

CONTACTS = {"+49301234": "Ada Lovelace"}
FIND = ("Crm", "Contact", "Find")
# How many requests are answered at the same time. While that many are, the adapter reads no more.
CONCURRENT = 100
# A message can be a little larger than `limits.message_bytes`, because the broker adds fields.
MESSAGE_BYTES = 2 * 1024 * 1024
# Close codes after which a person has to change something (docs/errors.md).
FINAL = {4401: "UNAUTHENTICATED", 4403: "FORBIDDEN", 4409: "REPLACED", 4410: "KICKED"}


async def find(number):
    """Returns the contact's name, or None. In real life, this asks a system and takes a while."""
    return CONTACTS.get(number)


async def send(socket, channel, topic, subtopic, **more):
    await socket.send(json.dumps({"channel": channel, "topic": topic, "subtopic": subtopic, **more}))


async def answer(socket, request):
    number = request.get("data")  # any JSON
    name = await find(number) if isinstance(number, str) else None
    if name is None:
        data = {"Success": False, "ErrorCode": "CONTACT_NOT_FOUND", "ErrorMessage": "no contact has this number"}
    else:
        data = {"Success": True, "ErrorMessage": None, "Name": name}
    try:
        # inReplyTo makes it a reply, which goes to the requester only.
        await send(socket, *FIND, inReplyTo=request["id"], data=data)
        if name is not None:
            # Without inReplyTo it is an event, for the applications of the requester's user. On a shared channel, a service
            # can send a request without a user.
            user = {"user": request["user"]} if "user" in request else {}
            await send(socket, "Crm", "Contact", "Found", **user, data={"Name": name})
    except websockets.ConnectionClosed:
        pass  # The request has ended with the connection.


def fields(value):
    """Returns an object's fields, and none for any other JSON."""
    return value if isinstance(value, dict) else {}


def read(text):
    """Returns a message's fields, and none if Python cannot read it: a number of 5,000 digits is valid JSON."""
    try:
        return fields(json.loads(text))
    except ValueError as error:
        print(f"ignored a message: {error}", file=sys.stderr, flush=True)
        return {}


async def received(socket, message, state):
    """Handles a message of the broker. Returns whether it is a request to answer."""
    triple = tuple(message.get(part) for part in ("channel", "topic", "subtopic"))
    data = fields(message.get("data"))
    if triple == FIND:
        return isinstance(message.get("id"), str)
    if triple[0] != "Broker":
        return False
    if data.get("Success") is False:
        print(f"{data.get('ErrorCode')}: {data.get('ErrorMessage')}", file=sys.stderr, flush=True)
    elif triple == ("Broker", "Application", "Register"):
        state["pause"] = 0.5
        pattern = dict(zip(("channel", "topic", "subtopic"), FIND))
        await send(socket, "Broker", "Subscription", "Subscribe", data={**pattern, "role": "handler"})
    elif triple == ("Broker", "Subscription", "Subscribe"):
        print("answering Crm/Contact/Find", flush=True)
    elif triple == ("Broker", "Connection", "Draining") and isinstance(data.get("ReconnectAfterMs"), int):
        state["restart"] = data["ReconnectAfterMs"] / 1000
    return False


async def serve(socket, state):
    """Serves one connection until it is closed."""
    data = {"token": os.environ.get("SWITCHBOARD_TOKEN"), "user": os.environ.get("SWITCHBOARD_USER")}
    await send(socket, "Broker", "Application", "Register", source="crm", data=data)
    running = set()
    async for text in socket:
        message = read(text)
        if await received(socket, message, state):
            if len(running) >= CONCURRENT:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
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
            async with websockets.connect(url, max_size=MESSAGE_BYTES) as socket:
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


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7420/ws"))
    except KeyboardInterrupt:
        pass
