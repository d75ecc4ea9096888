"""`Settings`: what `connect` was given."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from ._errors import SwitchboardError
from ._frames import Will
from ._listeners import Log

Why: TypeAlias = Literal["register", "renew", "refused"]
"""Why a token provider is asked: to register, because the proof expires soon, because the last token was refused."""
TokenProvider: TypeAlias = Callable[[Why], str | Awaitable[str]]
WhenAway: TypeAlias = Literal["keep", "fail"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Settings:
    """See the module."""

    source: str
    urls: tuple[str, ...]
    token: str | TokenProvider | None = field(repr=False)
    user: str | None
    resume: bool
    when_away: WhenAway
    will: Will | None = field(repr=False)
    ssl: ssl.SSLContext | None
    log: Log

    @property
    def can_change_token(self) -> bool:
        """Whether there is a token provider."""
        return callable(self.token)

    async def ask_token(self, why: Why) -> str | None:
        """Returns the token to register with. Whatever the provider raises is for the caller."""
        if not callable(self.token):
            return self.token
        token = self.token(why)
        return await token if inspect.isawaitable(token) else token


def check_url(url: str) -> str:
    """Returns the address of a broker if it is one."""
    try:
        parts = urlsplit(url)
        # Raises ValueError if it is not a number.
        _ = parts.port
    except ValueError:
        raise SwitchboardError("BAD_ADDRESS", "the address cannot be read") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise SwitchboardError("BAD_ADDRESS", "the address does not begin with ws:// or wss:// and a host")
    if parts.username is not None or parts.query or parts.fragment:
        # People put tokens there by mistake. The broker refuses them, and proxies log them.
        raise SwitchboardError("BAD_ADDRESS", "the address has a user name, a query or a fragment")
    return url
