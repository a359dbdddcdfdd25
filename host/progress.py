"""Progress of long work on stderr: bars on a terminal, a line a minute in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 60.0


def open_progress() -> LoggedProgress:
    return LoggedProgress(Console(stderr=True))


class LoggedProgress(Progress):
    """Bars of tasks; where `console` is no terminal (nohup, CI, a pipe), lines: what, how far, time left."""

    def __init__(self, console: Console, now: Callable[[], float] = time.monotonic) -> None:
        columns = (TextColumn("{task.description:>10}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console, get_time=now, disable=not console.is_terminal)
        self._line_due_s = now() + LINE_EVERY_S

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._log(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._log(task_id)

    def _log(self, task_id: TaskID) -> None:
        now_s = self.get_time()
        if not self.disable or now_s < self._line_due_s:
            return
        self._line_due_s = now_s + LINE_EVERY_S
        task = self._tasks[task_id]
        left = "" if task.time_remaining is None else f", {timedelta(seconds=int(task.time_remaining))} left"
        line = f"{task.description}: {task.percentage:.0f} %{left}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
