"""`Backoff`: how long to wait before the next attempt."""

from __future__ import annotations

import random

FIRST = 0.25
LAST = 30.0


class Backoff:
    """Exponential back-off with full jitter: a random time below a ceiling that doubles from attempt to attempt.

    Without jitter, clients that lost their connections at once would return at once.
    """

    def __init__(self) -> None:
        self._attempts = 0

    def next(self) -> float:
        """Returns the next pause, in seconds."""
        # The exponent is bounded, so that the power stays a small number in a program that waits for days.
        ceiling = min(FIRST * 2 ** min(self._attempts, 16), LAST)
        self._attempts += 1
        return random.uniform(0, ceiling)

    def reset(self) -> None:
        """Begins with the first ceiling again."""
        self._attempts = 0
