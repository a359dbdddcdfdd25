"""The model that judges, and the change to another one while parts go by.

The other model is verified, loaded and self-tested in a thread of its own, beside the one that judges. It takes over
between two parts, on trial: the old one stands by, and is back if an engine fails or far too many parts are rejected.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from board.log import say
from board.models.inspector import Inspector
from protocol.commands import Answer, Rollback, SwitchModel
from protocol.errors import BeltsightError, InputError, MessageError
from protocol.manifest import Manifest
from protocol.messages import decode_json, rfc3339_now
from protocol.strict import require

CLOSE_WITHIN_S = 5.0
MAX_CHOSEN_BYTES = 1024

OpenInspector = Callable[[str, str], Inspector]
"""By the model's id and, for one that is not there yet, the URL of its package. Raises: BeltsightError."""


@dataclass(frozen=True)
class ModelChangeSettings:
    trial_parts: int = 20  # for so many parts the model before stands by; 0: it is let go at once
    most_rejected: float = 0.8  # share of the trial's parts; with more rejected, the model before comes back
    remembered: Path | None = None  # file that keeps which model was commanded, for the next start
    fetched: Path | None = None  # folder for models that a command tells where to fetch; needs trusted_keys

    def __post_init__(self) -> None:
        require(0 <= self.trial_parts <= 100_000, "trial_parts", "must be 0..100000")
        require(0 < self.most_rejected <= 1, "most_rejected", "must be above 0 and at most 1")


@dataclass(frozen=True)
class Chosen:
    """Models that were commanded: the one that judges, and the one before."""

    model: str
    before: str = ""


@dataclass
class _Trial:
    order: SwitchModel | Rollback
    previous: Inspector
    previous_threshold: float
    parts: int = 0
    rejected: int = 0


class Models:
    def __init__(
        self,
        first: Inspector,
        threshold: float | None,
        settings: ModelChangeSettings,
        open_inspector: OpenInspector,
        before: str = "",
    ) -> None:
        """`threshold` overrides the first model's own, and `require_threshold` has seen it; `before` is the model to
        roll back to. Takes inspectors over.
        """
        self.current, self.before = first, before
        self._threshold = first.manifest.threshold.value if threshold is None else threshold
        self._settings, self._open = settings, open_inspector
        self._trial: _Trial | None = None
        self._opening: threading.Thread | None = None
        self._opened: queue.SimpleQueue[tuple[SwitchModel | Rollback, Inspector | str]] = queue.SimpleQueue()

    @property
    def threshold(self) -> float:
        """Of the model that judges."""
        return self._threshold

    def set_threshold(self, value: float) -> None:
        """Raises: MessageError for one that the model's scores cannot reach."""
        fault = self.current.manifest.map.threshold_fault(value)
        if fault:
            raise MessageError(f"value {fault}")
        self._threshold = value

    def begin(self, order: SwitchModel | Rollback) -> bool:
        """Open the model beside the current one, for `step` to take over. True if all is done: a trial was ended.

        Raises: MessageError.
        """
        if isinstance(order, Rollback) and self._trial:
            self._return_to(self._trial)
            return True
        if self._opening or self._trial:
            raise MessageError("another model is being taken or on trial: wait for its end")
        model, url = (order.model, order.url) if isinstance(order, SwitchModel) else (self.before, "")
        if not model:
            raise MessageError("there is no model before this one: command a model by its name")
        if model == self.current.manifest.id:
            raise MessageError(f"{model} judges already")
        self._opening = threading.Thread(target=self._prepare, args=(order, model, url), name="open-model", daemon=True)
        self._opening.start()
        return False

    def step(self) -> Answer | None:
        """Between two parts: take over a model that is ready. The answer, when the change is made or has failed."""
        try:
            order, opened = self._opened.get_nowait()
        except queue.Empty:
            return None
        self._opening = None
        if isinstance(opened, str):
            return _answer(order, opened)
        self._trial = _Trial(order, self.current, self._threshold)
        self.current, self._threshold = opened, opened.manifest.threshold.value
        if self._settings.trial_parts == 0:
            self._end_trial()
        return _answer(order, "")

    def note(self, *, failed: bool, rejected: bool) -> Answer | None:
        """Count a judged part. The answer, when a trial ends with the model before."""
        trial = self._trial
        if trial is None:
            return None
        trial.parts += 1
        trial.rejected += rejected
        if failed:
            return self._go_back(trial, "no engine could run it")
        if trial.parts < self._settings.trial_parts:
            return None
        if trial.rejected > self._settings.most_rejected * trial.parts:
            return self._go_back(trial, f"it rejected {trial.rejected} of its first {trial.parts} parts")
        self._end_trial()
        return None

    def close(self) -> None:
        if self._opening:
            self._opening.join(CLOSE_WITHIN_S)
        with contextlib.suppress(queue.Empty):
            _, opened = self._opened.get_nowait()
            if isinstance(opened, Inspector):
                opened.close()
        if self._trial:
            self._trial.previous.close()
        self.current.close()

    def _prepare(self, order: SwitchModel | Rollback, model: str, url: str) -> None:
        try:
            self._opened.put((order, self._open(model, url)))
        except BeltsightError as error:
            self._opened.put((order, str(error)))

    def _go_back(self, trial: _Trial, why: str) -> Answer:
        self._return_to(trial)
        return _answer(trial.order, f"{why}: back to {self.current.manifest.id}")

    def _return_to(self, trial: _Trial) -> None:
        self.current.close()
        self.current, self._threshold = trial.previous, trial.previous_threshold
        self._trial = None

    def _end_trial(self) -> None:
        if self._trial:
            self.before = self._trial.previous.manifest.id
            self._trial.previous.close()
            self._trial = None
        if self._settings.remembered:
            remember_models(self._settings.remembered, Chosen(self.current.manifest.id, self.before))


def require_threshold(manifest: Manifest, value: float) -> None:
    """Of a configuration. Raises: InputError."""
    fault = manifest.map.threshold_fault(value)
    if fault:
        raise InputError(f"threshold {fault}: correct it in the line's configuration, or leave it out")


def remember_models(path: Path, chosen: Chosen) -> None:
    """In one step. A choice that cannot be kept is said in the log: the line goes on."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("w") as file:
            file.write(json.dumps(asdict(chosen)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        say(f"cannot keep {chosen.model} in {path} ({error.strerror})", level="WARNING")


def recall_models(path: Path) -> Chosen | None:
    """None if no model was commanded. Raises: InputError if the file is not ours."""
    try:
        with path.open("rb") as file:
            chosen = decode_json(Chosen, file.read(MAX_CHOSEN_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, MessageError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it") from None
    if any(set(name) & set("/\\") or name.startswith(".") for name in (chosen.model, chosen.before)):
        raise InputError(f"{path} holds no names of models: remove it")
    return chosen


def _answer(order: SwitchModel | Rollback, trouble: str) -> Answer:
    name = "model" if isinstance(order, SwitchModel) else "rollback"
    return Answer(order.id, name, not trouble, trouble, rfc3339_now())
