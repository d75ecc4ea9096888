"""`Resume`: what continues a session on another connection: its token, and the count of what it has received."""

from __future__ import annotations

ACKNOWLEDGE_AFTER = 64
"""How many messages are received before they are acknowledged."""
ACKNOWLEDGE_WITHIN = 5.0
"""How long, in seconds, a message waits for others that are acknowledged with it."""


class Resume:
    """The receiving side of a session that may outlive its connection."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self.token: str | None = None
        self.received = 0
        self._acknowledged = 0
        self._since: float | None = None

    def option(self) -> object:
        """Returns the option `resume` of Register."""
        if self.token is None:
            return self._wanted
        return {"token": self.token, "received": self.received}

    def begin(self, token: str | None) -> None:
        """A new session has begun, with this token if it is resumable."""
        self.token = token if self._wanted else None
        self.received = self._acknowledged = 0
        self._since = None

    def go_on(self, token: str | None) -> None:
        """The session continues, with a new token."""
        self.token = token

    def count(self, now: float) -> None:
        """Counts a message of the session."""
        if self.token is not None:
            self.received += 1
            if self._since is None:
                self._since = now

    def due(self, now: float) -> bool:
        """Returns whether it is time to acknowledge."""
        return self.received - self._acknowledged >= ACKNOWLEDGE_AFTER or (
            self._since is not None and self._since + ACKNOWLEDGE_WITHIN <= now
        )

    def acknowledge(self) -> int:
        """Notes that everything is acknowledged, and returns the count to send."""
        self._acknowledged = self.received
        self._since = None
        return self.received
