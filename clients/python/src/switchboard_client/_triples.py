"""Triples, written "Channel/Topic/Subtopic", and patterns, in which parts can be "*" or be left off at the end."""

from __future__ import annotations

from typing import NamedTuple

from ._errors import SwitchboardError


class Triple(NamedTuple):
    """The routing key of an envelope; as a pattern, each part can be "*"."""

    channel: str
    topic: str
    subtopic: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def width(self) -> int:
        """The number of wildcards."""
        return self.count("*")

    def matches(self, triple: Triple) -> bool:
        """Returns whether this pattern matches a triple. A wildcard does not match the channel `Broker`."""
        return (
            (self.channel == triple.channel or (self.channel == "*" and triple.channel != "Broker"))
            and (self.topic in ("*", triple.topic))
            and (self.subtopic in ("*", triple.subtopic))
        )

    def folded(self) -> Triple:
        """Returns it with topic and subtopic in lower case, for channels in which the broker ignores their case."""
        return Triple(self.channel, self.topic.lower(), self.subtopic.lower())


def read_triple(text: str) -> Triple:
    """Reads "Channel/Topic/Subtopic"."""
    parts = text.split("/")
    if len(parts) != 3 or not all(parts) or "*" in parts:
        raise SwitchboardError("INVALID_ENVELOPE", f"{text!r} is not a triple, which is written Channel/Topic/Subtopic")
    return Triple(*parts)


def read_pattern(text: str) -> Triple:
    """Reads a pattern."""
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise SwitchboardError(
            "INVALID_ENVELOPE", f"{text!r} is not a pattern, which is written Channel/Topic/Subtopic or Channel/*"
        )
    return Triple(*parts, *["*"] * (3 - len(parts)))
