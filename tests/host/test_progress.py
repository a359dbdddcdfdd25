import io

from rich.console import Console

from host.progress import LoggedProgress


def run_task(console: Console, step_s: float) -> str:
    """What ten steps print."""
    clock = [0.0]
    with LoggedProgress(console, lambda: clock[0]) as progress:
        task = progress.add_task("train", total=10)
        for step in range(1, 11):
            clock[0] += step_s
            progress.update(task, completed=step)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_gets_a_line_a_minute_with_the_time_left() -> None:
    lines = run_task(Console(file=io.StringIO()), step_s=25.0).splitlines()
    assert lines == ["train: 30 %, 0:02:55 left", "train: 60 %, 0:01:40 left", "train: 90 %, 0:00:25 left"]


def test_a_log_of_short_work_stays_empty() -> None:
    assert run_task(Console(file=io.StringIO()), step_s=1.0) == ""


def test_a_terminal_gets_bars() -> None:
    printed = run_task(Console(file=io.StringIO(), force_terminal=True, width=80), step_s=25.0)
    assert "━" in printed
    assert "left" not in printed
