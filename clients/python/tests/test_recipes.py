"""Runs the recipes of docs/guides/recipes.md that are in Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .support import BINARY, DEADLINE

GUIDE = Path(__file__).parents[3] / "docs/guides/recipes.md"


def write(name: str, folder: Path) -> Path:
    """Writes a recipe into a file of this name."""
    found = re.search(rf" runs it as {re.escape(name)} -->\n```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None, f"{GUIDE} lacks {name}"
    file = folder / name
    file.write_text(found[1])
    return file


def run_pytest(folder: Path) -> str:
    """Runs the test in a folder, as its author does, and returns what it prints."""
    binary = shutil.which(BINARY)
    assert binary is not None, f"there is no {BINARY}"
    programs = folder / "bin"
    if not programs.exists():
        programs.mkdir()
        (programs / "switchboard").symlink_to(Path(binary).resolve())
    sources = Path(__file__).parents[1] / "src"
    path = os.pathsep.join([str(programs), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "made")]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    return ran.stdout + ran.stderr


def test_an_application_is_tested_against_a_broker_of_its_test(tmp_path: Path) -> None:
    application = write("crm.py", tmp_path)
    write("test_crm.py", tmp_path)
    printed = run_pytest(tmp_path)
    assert re.search(r"^1 passed in ", printed, re.MULTILINE), printed
    # It notices a mistake of the application.
    application.write_text(application.read_text().replace("Ada Lovelace", "Grace Hopper"))
    printed = run_pytest(tmp_path)
    assert "AssertionError" in printed and re.search(r"^1 failed in ", printed, re.MULTILINE), printed
