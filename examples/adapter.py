#!/usr/bin/env python3
"""An adapter: answers Crm/Contact/Find, and publishes Crm/Contact/Found.

    python3 -m venv venv && venv/bin/pip install ./clients/python
    SWITCHBOARD_USER=alice@example.com venv/bin/python examples/adapter.py [ws://127.0.0.1:7420/ws]
    switchboard request Crm Contact Find '"+49301234"' --source me --user alice@example.com

It answers one user's applications. A broker with auth.mode = "tokens" takes the user from a token: set SWITCHBOARD_TOKEN; with
a service's token it answers all users. docs/guides/python.md explains the client, docs/guides/adapter.md the rest.
"""

import asyncio
import os
import sys
from typing import Any

from switchboard_client import Request, StateChange, SwitchboardError, connect

CONTACTS = {"+49301234": "Ada Lovelace"}
# How many requests are answered at the same time. The others wait.
CONCURRENT = 100


async def find(number: str) -> str | None:
    """Returns the contact's name, or None. In real life, this asks a system and takes a while."""
    return CONTACTS.get(number)


def report(change: StateChange) -> None:
    if change.state == "connecting":
        print(f"not connected: {change.problem}", file=sys.stderr, flush=True)


async def main(url: str) -> None:
    token, user = os.environ.get("SWITCHBOARD_TOKEN"), os.environ.get("SWITCHBOARD_USER")
    async with connect("crm", url=url, token=token, user=user) as desk:
        desk.on("state", report)
        desk.on("error", lambda error: print(error, file=sys.stderr, flush=True))

        @desk.handle("Crm/Contact/Find", concurrency=CONCURRENT)
        async def answer(request: Request) -> dict[str, Any]:
            number = request.data  # any JSON
            name = await find(number) if isinstance(number, str) else None
            if name is None:
                raise SwitchboardError("CONTACT_NOT_FOUND", "no contact has this number")
            # An event, for the applications of the requester's user. On a shared channel, a service can send a request without
            # a user.
            await desk.publish("Crm/Contact/Found", {"Name": name}, user=request.user, receipt=False)
            return {"Success": True, "ErrorMessage": None, "Name": name}

        await answer.ready
        print("answering Crm/Contact/Find", flush=True)
        sys.exit(f"stopped: {await desk.closed()}")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7420/ws"))
    except SwitchboardError as refused:
        sys.exit(f"stopped: {refused}")
    except KeyboardInterrupt:
        pass
