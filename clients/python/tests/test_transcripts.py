"""The transcripts of `tests/it/transcripts`, played through the client's surface against the real broker."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from pathlib import Path

from .player import Player
from .support import broker, scenario
from .transcript import HIDDEN, Unplayable, names, read

AT_ONCE = 6
PAGE = Path(__file__).parents[3] / "docs/testing.md"

# What the client does in place of what they expect.
HIDES = {
    # It sends no time limit below 1 ms.
    "envelope-timeout",
    # It subscribes again with the retained values.
    "history-retained",
    # It tries again.
    "limits-sessions",
    # It gives each request an id, and an answer without one is for nobody.
    "rule-1-3-the-requesters-own-id",
    "rule-2-03-requests-only",
    "rule-2-20-an-adapters-answers-in-order",
    # It only logs that an answer was too late.
    "rule-2-17-the-requester-leaves",
    "rule-2-19-reply-less-commands",
}


async def play(name: str) -> str:
    """Plays a transcript. Returns why it cannot be played, if it cannot."""
    if name in HIDES:
        return HIDDEN
    try:
        transcript = read(name)
        config = transcript.config
        if config is not None:
            mode = "" if "[auth]" in config else '[auth]\nmode = "open"\n'
            config = f"{config}\n{mode}[admin]\nlisten = []\n"
        async with broker(config) as running:
            await Player(running, transcript).play()
    except Unplayable as why:
        return str(why)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
    return ""


@scenario
async def test_the_transcripts_pass_and_docs_testing_md_lists_the_others() -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def limited(name: str) -> str:
        async with slots:
            return await play(name)

    left: dict[str, list[str]] = defaultdict(list)
    everything = names()
    # Each one to its end: asyncio cannot cancel the start of a process.
    outcomes = await asyncio.gather(*map(limited, everything), return_exceptions=True)
    for name, outcome in zip(everything, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome:
            left[outcome].append(name)
    rows = "\n".join(f"| {why} | {', '.join(left[why])} |" for why in sorted(left, key=lambda why: len(left[why])))
    table = f"| why not | transcripts |\n|---|---|\n{rows}\n"
    played = len(everything) - sum(map(len, left.values()))
    found = re.search(r"plays (\d+) of the (\d+) transcripts", PAGE.read_text())
    assert found is not None and found.groups() == (str(played), str(len(everything))), (played, len(everything))
    assert table in PAGE.read_text(), f"docs/testing.md is stale; its table must be:\n\n{table}"
