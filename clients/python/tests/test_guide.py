"""Executes the blocks of docs/guides/python.md. A comment before each block says how."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from switchboard_client import connect

from .support import broker, scenario, soon

GUIDE = Path(__file__).parents[3] / "docs/guides/python.md"
HISTORY = """
[auth]
mode = "open"
[admin]
listen = []
[channels.Sales]
history = { size = 100, ttl = "10m" }
"""


def blocks(how: str) -> list[str]:
    """Returns the blocks that are tested in this way."""
    return re.findall(rf"<!-- test: {how} -->\n```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def test_every_block_says_how_it_is_tested() -> None:
    text = GUIDE.read_text()
    assert len(re.findall(r"^```\w+$", text, re.MULTILINE)) == len(re.findall(r"<!-- test: .* -->\n```\w+\n", text))
    assert len(blocks("python program")) == 1 and len(blocks("python")) >= 7


@scenario
async def test_the_adapter_answers() -> None:
    async with broker() as running, connect("phone", url=running.url) as phone:
        program = blocks("python program")[0].replace("ws://127.0.0.1:7420/ws", running.url)
        assert running.url in program
        path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=path)
        try:
            # Until it has connected there is no handler.
            while (answer := (await phone.gather("Crm/Contact/Find", "+49301234")).answers) == ():
                await asyncio.sleep(0.02)
            assert [it.data for it in answer] == [{"Name": "Ada Lovelace"}]
        finally:
            process.kill()
            await soon(process.wait())


@scenario
async def test_the_recipes_do_what_they_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crm.token").write_text("a token\n")
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(broker(HISTORY))
        desks = [await stack.enter_async_context(connect(name, url=running.url)) for name in ("desk", "other")]
        names: dict[str, Any] = {"desk": desks[0], "other": desks[1], "url": running.url}
        for block in blocks("python"):
            code = compile(block, str(GUIDE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running_block = eval(code, names)
            if inspect.isawaitable(running_block):
                await soon(running_block)
            # What it has sent has arrived.
            for desk in desks:
                await desk.applications()
    printed = capsys.readouterr().out
    for line in (
        "Phone/Call/Ringing other {'from': '+49301234'}",
        "receivers: 1",
        "ringing: +49301234 retained: True",
        "dialling",
        "call: 1",
        "BAD_NUMBER False number is empty",
        "1 asked, 0 failed",
        "after the restart: 2 True",
        "closed None",
    ):
        assert line in printed.splitlines(), f"no line '{line}' in:\n{printed}"
