"""The Python client of the switchboard message broker, for adapters and scripts.

```python
async with connect("crm") as desk:
    @desk.handle("Crm/Contact/Find")
    async def find(request: Request) -> dict[str, object]:
        return {"name": await lookup(request.data)}

    await desk.opened()
    receipt = await desk.publish("Phone/Call/Ringing", {"from": "+49301234"})
    async for event in desk.events("Phone/Call/*"):
        print(event.triple, event.data)
```

A triple is written "Channel/Topic/Subtopic". In a pattern, any part can be "*", and parts can be left off at the end.
Times are seconds. The guide is docs/guides/python.md.
"""

from ._catalogue import BrokerCode
from ._desk import Desk, connect
from ._errors import ClientCode, ConnectionCode, SwitchboardError
from ._frames import (
    After,
    Answer,
    Application,
    Back,
    Credentials,
    Dropped,
    Failed,
    Gathered,
    Lagging,
    Last,
    Message,
    Receipt,
    Session,
    State,
    StateChange,
    Subscribed,
    Will,
)
from ._handling import Request
from ._settings import TokenProvider, WhenAway, Why
from ._subscription import Events, Subscription

__all__ = [
    "After",
    "Answer",
    "Application",
    "Back",
    "BrokerCode",
    "ClientCode",
    "ConnectionCode",
    "Credentials",
    "Desk",
    "Dropped",
    "Events",
    "Failed",
    "Gathered",
    "Lagging",
    "Last",
    "Message",
    "Receipt",
    "Request",
    "Session",
    "State",
    "StateChange",
    "Subscribed",
    "Subscription",
    "SwitchboardError",
    "TokenProvider",
    "WhenAway",
    "Why",
    "Will",
    "connect",
]
