"""The model that judges, and the change to another one while parts go by.

The other model is verified, loaded and self-tested in a thread of its own, beside the one that judges. It takes over
between two parts, on trial: the old one stands by, and is back if an engine fails or far too many parts are rejected.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from board.inspector import Inspector
from protocol.commands import Answer, SwitchModel
from protocol.errors import BeltsightError, InputError, MessageError
from protocol.messages import rfc3339_now
from protocol.strict import require

CLOSE_WITHIN_S = 5.0
MAX_ID_BYTES = 256

OpenInspector = Callable[[str], Inspector]
"""By the model's id, for frames of the line's size. Raises: BeltsightError."""


@dataclass(frozen=True)
class ModelChangeSettings:
    trial_parts: int = 20  # for so many parts the model before stands by; 0: it is let go at once
    most_rejected: float = 0.8  # share of the trial's parts; with more rejected, the model before comes back
    remembered: Path | None = None  # file that keeps the id of a model that was commanded, for the next start

    def __post_init__(self) -> None:
        require(0 <= self.trial_parts <= 100_000, "trial_parts", "must be 0..100000")
        require(0 < self.most_rejected <= 1, "most_rejected", "must be above 0 and at most 1")


@dataclass
class _Trial:
    order: SwitchModel
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
    ) -> None:
        """`threshold` overrides the first model's own. Takes the inspectors over."""
        self.current = first
        self.threshold = first.manifest.threshold.value if threshold is None else threshold
        self._settings, self._open = settings, open_inspector
        self._trial: _Trial | None = None
        self._opening: threading.Thread | None = None
        self._opened: queue.SimpleQueue[tuple[SwitchModel, Inspector | str]] = queue.SimpleQueue()

    def begin(self, order: SwitchModel) -> None:
        """Open the model beside the current one; `step` takes it over. Raises: MessageError."""
        if self._opening or self._trial:
            raise MessageError("another model is being taken or on trial: wait for its end")
        if order.model == self.current.manifest.id:
            raise MessageError(f"{order.model} judges already")
        self._opening = threading.Thread(target=self._prepare, args=(order,), name="open-model", daemon=True)
        self._opening.start()

    def step(self) -> Answer | None:
        """Between two parts: take over a model that is ready. The answer, when the change is made or has failed."""
        try:
            order, opened = self._opened.get_nowait()
        except queue.Empty:
            return None
        self._opening = None
        if isinstance(opened, str):
            return _answer(order, opened)
        self._trial = _Trial(order, self.current, self.threshold)
        self.current, self.threshold = opened, opened.manifest.threshold.value
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

    def _prepare(self, order: SwitchModel) -> None:
        try:
            self._opened.put((order, self._open(order.model)))
        except BeltsightError as error:
            self._opened.put((order, str(error)))

    def _go_back(self, trial: _Trial, why: str) -> Answer:
        self.current.close()
        self.current, self.threshold = trial.previous, trial.previous_threshold
        self._trial = None
        return _answer(trial.order, f"{why}: back to {self.current.manifest.id}")

    def _end_trial(self) -> None:
        if self._trial:
            self._trial.previous.close()
            self._trial = None
        if self._settings.remembered:
            remember_model(self._settings.remembered, self.current.manifest.id)


def remember_model(path: Path, model_id: str) -> None:
    """In one step. A choice that cannot be kept is said in the log: the line goes on."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("w") as file:
            file.write(model_id + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        print(f"beltsight: cannot keep the choice of {model_id} in {path} ({error.strerror})", file=sys.stderr)


def recall_model(path: Path) -> str | None:
    """The id that was remembered, None if none was. Raises: InputError if the file is not ours."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_ID_BYTES + 1).decode().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it") from None
    if not text or len(text) > MAX_ID_BYTES or set(text) & set("/\\\n"):
        raise InputError(f"{path} holds no name of a model: remove it")
    return text


def _answer(order: SwitchModel, trouble: str) -> Answer:
    return Answer(order.id, "model", not trouble, trouble, rfc3339_now())
