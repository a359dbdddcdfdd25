"""What each augmentation is worth: the recipe as it is, and with one of them changed at a time.

    beltsight ablation --data mvtec-bottle --seeds 0,1,2 --out ablation

Judged like the search, without test pictures. Interrupted, the same command goes on; the table is `ablation.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from rich.progress import Progress, TaskID

from host.export.order import parse_seeds
from host.learning.augmentation import Variation
from host.learning.recipe import Recipe, load_recipe
from host.progress import open_progress
from host.tuning.trial import load_field, run_trial
from protocol.errors import InputError, run_resumable

TABLE_MD = "ablation.md"
# What an augmentation that the recipe leaves out is tried with.
USUAL = Variation(flips=True, hue_deg=5.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight ablation", description="What each augmentation is worth.")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--recipe", type=Path, help="TOML file of the settings to start from")
    parser.add_argument("--seeds", default="0,1,2", help="trainings of each row (default: 0,1,2)")
    parser.add_argument("--out", type=Path, default=Path("ablation"), help="folder of the results (default: ablation)")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe) if options.recipe else Recipe()
    try:
        print(ablate(options.data, recipe, parse_seeds(options.seeds), options.out))
    except OSError as error:
        raise InputError(f"{error.filename or options.out}: {error.strerror or error}: choose another --out") from None
    return 0


def ablate(data: Path, recipe: Recipe, seeds: tuple[int, ...], out: Path) -> str:
    """A Markdown table, also in a file of `out`. Raises: InputError for pictures that cannot be used."""
    field = load_field(data, recipe)
    out.mkdir(parents=True, exist_ok=True)
    scores = {}
    with open_progress() as progress:
        for name, variation in list_variants(recipe.variation).items():
            task = progress.add_task(name, total=recipe.float_steps * len(seeds))
            changed, advance = replace(recipe, variation=variation), _show(progress, task)
            scores[name] = [run_trial(changed, field, seed, out, advance) for seed in seeds]
    table = _write_table(scores)
    (out / TABLE_MD).write_text(table + "\n")
    return table


def list_variants(variation: Variation) -> dict[str, Variation]:
    """The variation as it is, then without each part that it has, and with each that it lacks."""
    variants = {"as it is": variation}
    for one in fields(variation):
        name, now = one.name, getattr(variation, one.name)
        title = name.removesuffix("_deg")
        if now:
            variants[f"without {title}"] = replace(variation, **{name: type(now)(0)})
        else:
            variants[f"with {title}"] = replace(variation, **{name: getattr(USUAL, name)})
    return variants


def _show(progress: Progress, task: TaskID) -> Callable[[int], None]:
    return lambda _step: progress.advance(task)


def _write_table(scores: dict[str, list[float]]) -> str:
    base = float(np.mean(scores["as it is"]))
    seeds = len(scores["as it is"])
    lines = [f"| augmentation | image AUROC, mean of {seeds} | worst | difference |", "|---|---|---|---|"]
    for name, values in scores.items():
        mean = float(np.mean(values))
        lines.append(f"| {name} | {mean:.4f} | {min(values):.4f} | {mean - base:+.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_resumable(main))
