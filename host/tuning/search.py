"""Search a recipe for a product, by defects of other kinds on held-out good pictures; test pictures take no part.

    beltsight search --data mvtec-bottle --trials 20 --out search

Interrupted, the same command goes on. `best.toml` in the folder is the best recipe so far, for scripts/export.sh.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from rich.progress import Progress, TaskID

from host.export.order import hash_values
from host.learning.recipe import Recipe, encode_recipe, load_recipe
from host.progress import open_progress
from host.tuning.trial import load_field, run_trial
from protocol.errors import InputError, run_resumable

STUDIES_DB, BEST_TOML = "studies.db", "best.toml"


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight search", description="Search a recipe for a product.")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--recipe", type=Path, help="TOML file of the settings to start from")
    parser.add_argument("--trials", type=int, default=20, help="trainings in all, earlier ones included (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("search"), help="folder of the results (default: search)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.trials < 1:
        raise InputError("--trials must be at least 1")
    base = load_recipe(options.recipe) if options.recipe else Recipe()
    try:
        print(search(options.data, base, options.trials, options.out, options.seed))
    except OSError as error:
        raise InputError(f"{error.filename or options.out}: {error.strerror or error}: choose another --out") from None
    return 0


def search(data: Path, base: Recipe, trials: int, out: Path, seed: int) -> str:
    """The best trials as a Markdown table. Raises: InputError for pictures that cannot be used."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    field = load_field(data, base)
    out.mkdir(parents=True, exist_ok=True)
    name = hash_values(asdict(base), seed, field.digest)  # another product or start is another study in the same file
    study = optuna.create_study(
        storage=f"sqlite:///{(out / STUDIES_DB).resolve()}",
        study_name=name,
        direction="maximize",
        load_if_exists=True,
    )
    done = len(_completed(study))
    with open_progress() as progress:
        for number in range(done, trials):
            # subtle: a sampler of the same seed would propose after an interruption what it proposed at the start
            study.sampler = optuna.samplers.TPESampler(seed=seed * 1000 + number)
            trial = _next_trial(study)
            task = progress.add_task(f"trial {number + 1}/{trials}", total=base.float_steps)
            recipe = propose(trial, base)
            score = run_trial(recipe, field, seed, out, _show(progress, task))
            study.tell(trial, score)
    (out / BEST_TOML).write_text(encode_recipe(propose(study.best_trial, base)))
    return _write_table(study)


def propose(trial: optuna.trial.BaseTrial, base: Recipe) -> Recipe:
    """What is searched: the two learning rates, weight decay, the score's pixels, and how much good parts vary."""
    variation = replace(
        base.variation,
        rotation_deg=trial.suggest_float("rotation_deg", 0.0, 45.0),
        illumination=trial.suggest_float("illumination", 0.0, 0.3),
        hue_deg=trial.suggest_float("hue_deg", 0.0, 10.0),
    )
    return replace(
        base,
        muon_rate=trial.suggest_float("muon_rate", 5e-3, 5e-2, log=True),
        learning_rate=trial.suggest_float("learning_rate", 5e-4, 5e-3, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-3, 1e-1, log=True),
        top_pixels=trial.suggest_int("top_pixels", 3, 30),
        variation=variation,
    )


def _next_trial(study: optuna.Study) -> optuna.trial.Trial:
    """The one that was interrupted, or a new one."""
    started = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    return optuna.trial.Trial(study, started[0]._trial_id) if started else study.ask()


def _show(progress: Progress, task: TaskID) -> Callable[[int], None]:
    return lambda step: progress.update(task, completed=step)


def _completed(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def _write_table(study: optuna.Study) -> str:
    trials = sorted(_completed(study), key=lambda trial: -(trial.value or 0))
    names = list(trials[0].params)
    lines = ["| trial | AUROC | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for trial in trials[:10]:
        values = " | ".join(f"{trial.params[name]:.4g}" for name in names)
        lines.append(f"| {trial.number} | {trial.value:.4f} | {values} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_resumable(main))
