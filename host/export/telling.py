"""The verdict on a new package, as whoever made it reads it on the terminal."""

from __future__ import annotations

from rich.console import Console

from protocol.errors import EXIT_UNFIT
from protocol.fitness import Fitness

STYLES = {"fit": "bold green", "weak": "bold yellow", "unfit": "bold red"}


def say_verdict(fitness: Fitness | None) -> int:
    """The last line, in colour on a terminal; the exit code."""
    if fitness is None:
        return 0
    if fitness.concerns:
        print(f"what to do: {fitness.advise()}")
    line = f"verdict: {fitness.describe()}"
    Console().print(line, style=STYLES[fitness.grade], markup=False, highlight=False, soft_wrap=True)
    return EXIT_UNFIT if fitness.grade == "unfit" else 0
