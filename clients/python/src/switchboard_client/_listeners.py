"""`Listeners`: the functions that `Desk.on` was given, and the tasks of those that are coroutines."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ._errors import SwitchboardError

LOGGER = logging.getLogger("switchboard_client")
TASKS_MAX = 1024
"""How many coroutine listeners of `Desk.on` run at the same time, those of one subscription not counted."""

Log = Callable[[str, str], None]


def standard_log(level: str, text: str) -> None:
    """Writes to the logger `switchboard_client`."""
    LOGGER.log(logging.WARNING if level == "warn" else logging.DEBUG, "%s", text)


class Listeners:
    """See the module."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._functions: dict[str, list[Callable[[Any], object]]] = {}
        self.tasks: set[asyncio.Task[object]] = set()

    def add(self, event: str, function: Callable[[Any], object]) -> Callable[[], None]:
        """Adds a listener, and returns the function that removes it."""
        functions = self._functions.setdefault(event, [])
        functions.append(function)

        def remove() -> None:
            if function in functions:
                functions.remove(function)

        return remove

    def emit(self, event: str, value: object) -> None:
        """Calls the listeners of an event."""
        functions = self._functions.get(event, ())
        if event == "error" and isinstance(value, SwitchboardError) and not functions:
            self.log("warn", str(value))
        for function in tuple(functions):
            self.call(function, value, f"a listener of {event!r}", reports=event != "error")

    def call(self, function: Callable[[Any], object], value: object, name: str, *, reports: bool = True) -> None:
        """Calls a listener. A coroutine runs as a task, which is not awaited."""
        try:
            result = function(value)
        except Exception as error:
            self.raised(error, name, reports=reports)
            return
        if inspect.iscoroutine(result):
            if len(self.tasks) < TASKS_MAX:
                self.spawn(result, name, reports=reports)
            else:
                result.close()
                self.log("warn", f"{name} was not run: {TASKS_MAX} coroutine listeners are running")

    def spawn(self, coroutine: Coroutine[Any, Any, object], name: str, *, reports: bool = True) -> asyncio.Task[object]:
        """Runs a coroutine of the application as a task."""
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)

        def done(task: asyncio.Task[object]) -> None:
            self.tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.raised(error, name, reports=reports)

        task.add_done_callback(done)
        return task

    def cancel(self, spared: asyncio.Task[Any] | None) -> None:
        """Cancels the running listeners, except this one."""
        for task in self.tasks:
            if task is not spared:
                task.cancel()

    def raised(self, error: BaseException, name: str, *, reports: bool = True) -> None:
        """Reports an exception of the application's code."""
        # The text of another program's exception can quote a payload.
        self.log("warn", f"{name} raised {type(error).__name__}")
        if not reports:
            return
        if isinstance(error, SwitchboardError):
            self.emit("error", error)
            return
        report = SwitchboardError("INTERNAL", f"{name} raised {type(error).__name__}")
        report.__cause__ = error
        self.emit("error", report)
