"""Reads the transcripts of `tests/it/transcripts`, and compares messages with what they expect.

The format is described in `tests/it/support/transcript/mod.rs`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "tests/it/transcripts"
OTHERS = "..."

# Why the client's surface cannot play a transcript.
CLOCK = "It moves the clock."
TEXT = "It sends a text that the client never writes."
NO_SESSION = "It sends without a session, or registers again on one connection."
SURFACE = "It uses a command, an option or a field that the client does not have, or not in this way."
HIDDEN = "It expects what the client does not show, such as the answer to a request without an id."

Envelope = dict[str, Any]


class Unplayable(Exception):
    """A step that the client's surface cannot make, or does not show."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line."""

    line: int
    action: str
    """send, expect, expect one, nothing, close, leave, log, register, subscribe or handle."""
    peers: tuple[str, ...]
    envelopes: tuple[Envelope, ...] = ()
    text: str = ""
    options: Envelope = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transcript:
    """One conversation."""

    config: str | None
    steps: tuple[Step, ...]


def names() -> list[str]:
    """Returns the names of all transcripts."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def read(name: str) -> Transcript:
    """Reads a transcript."""
    config, steps = None, []
    lines = list(enumerate((FOLDER / f"{name}.txt").read_text().splitlines(), 1))
    while lines:
        at, line = lines.pop(0)
        if not line.strip() or line.startswith("#") or line == "needs adapters":
            continue
        if line == "config <<toml":
            end = next(index for index, (_, text) in enumerate(lines) if text == "toml")
            config = "\n".join(text for _, text in lines[:end])
            del lines[: end + 1]
            continue
        line = _joined(line, lines)
        step = _read_line(at, line)
        if step.action == "expect" and "<* " in line:
            mark = line.split("<* ")[0] + "<* "
            more = []
            while lines and lines[0][1].startswith(mark):
                more.append(_message(_joined(lines.pop(0)[1], lines).removeprefix(mark)))
            step = Step(at, "expect", step.peers, (*step.envelopes, *more))
        steps.append(step)
    return Transcript(config, tuple(steps))


def _joined(line: str, lines: list[tuple[int, str]]) -> str:
    while lines and lines[0][1].startswith(" "):
        line += " " + lines.pop(0)[1].strip()
    return line


def _read_line(at: int, line: str) -> Step:
    if line.startswith(("clock +", "proofs last ")):
        raise Unplayable(CLOCK)
    if line.startswith("log once "):
        return Step(at, "log", ("log",))
    match = re.match(r"([^ <>]+)([<>]\*?| )(.*)$", line)
    assert match is not None, line
    peers, mark, rest = tuple(match[1].split("|")), match[2], match[3].strip()
    if mark == ">":
        return Step(at, "send", peers, text=rest)
    if mark[0] == "<":
        if rest == "nothing":
            return Step(at, "nothing", peers)
        if rest.startswith("close "):
            return Step(at, "close", peers, text=rest)
        return Step(at, "expect one" if len(peers) > 1 else "expect", peers, (_message(rest),))
    if rest == "leaves":
        return Step(at, "leave", peers)
    return _command(at, peers, rest)


def _command(at: int, peers: tuple[str, ...], line: str) -> Step:
    line, _, failure = line.partition(" fails with ")
    line, brace, data = line.partition(" {")
    options = json.loads(brace.strip() + data) if brace else {}
    code = failure.partition(":")[0]
    if line.startswith("registers as "):
        source, _, user = line.removeprefix("registers as ").partition(" for ")
        return Step(at, "register", peers, ({"source": source, "user": user or None},), code, options)
    word, pattern = line.split(" to ") if " to " in line else line.split(" ", 1)
    return Step(at, "subscribe" if word == "subscribes" else "handle", peers, ({"pattern": pattern},), code, options)


def split(text: str) -> tuple[Envelope, str]:
    """Splits a triple from the fields after it."""
    if text[:1] in '{["':
        return {}, text
    triple, _, rest = text.partition(" ")
    parts = triple.split("/")
    if len(parts) != 3:
        raise Unplayable(TEXT)
    return dict(zip(("channel", "topic", "subtopic"), parts, strict=True)), rest.strip()


def _message(text: str) -> Envelope:
    triple, rest = split(text)
    return {**triple, **(json.loads(rest) if rest else {})}


class Names:
    """The texts that the broker made and a transcript has named."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def fill(self, text: str) -> str:
        """Replaces every `$name`."""
        for name in sorted(self._names, key=len, reverse=True):
            text = text.replace(f"${name}", self._names[name])
        return text

    def matches(self, expected: Envelope, found: Envelope) -> bool:
        """Compares a message, and remembers the names that it binds."""
        before = dict(self._names)
        if self._object(expected, found, ordered=False):
            return True
        self._names = before
        return False

    def value(self, expected: object, found: object) -> bool:
        """Compares a value."""
        if isinstance(expected, str) and expected.startswith("<") and expected.endswith(">"):
            return self._special(expected[1:-1], found)
        if isinstance(expected, str) and isinstance(found, str):
            return self.fill(expected) == found
        if isinstance(expected, dict) and isinstance(found, dict):
            return self._object(expected, found, ordered=OTHERS not in expected and "Success" not in expected)
        if isinstance(expected, list) and isinstance(found, list):
            left = list(found)
            for value in expected:
                at = next((index for index, other in enumerate(left) if self.value(value, other)), None)
                if at is None:
                    return False
                del left[at]
            return not left
        return type(expected) is type(found) and expected == found

    def _object(self, expected: Envelope, found: Envelope, *, ordered: bool) -> bool:
        keys = [key for key in expected if key != OTHERS]
        if OTHERS not in expected and (set(found) - set(keys) or (ordered and list(found) != keys)):
            return False
        return all(key in found and self.value(expected[key], found[key]) for key in keys)

    def _special(self, special: str, found: object) -> bool:
        kind, _, words = special.partition(":")
        data = found if isinstance(found, dict) else {}
        match kind:
            case "any":
                return True
            case "id" if isinstance(found, str):
                self._names[words] = found
                return True
            case "has":
                return isinstance(found, str) and self.fill(words) in found
            case "uuid" | "time":
                return isinstance(found, str) and "-" in found
            case "success":
                return data.get("Success") is True
            case "failure":
                code, _, part = words.partition(":")
                message = str(data.get("ErrorMessage"))
                return data.get("Success") is False and data.get("ErrorCode") == code and part in message
        return False
