"""The model that judges, and the change to another one while parts go by.

The other model is verified, loaded and self-tested in a thread of its own, beside the one that judges. It takes over
between two parts, on trial: the old one stands by, and is back if an engine fails or far too many parts are rejected.
Each change is on the disk before it is answered (board/models/choice.py); a station that ends during a trial goes on
with it after its next start.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from board.disk import Disk
from board.models.choice import Chosen, remember_models
from board.models.inspector import Inspector
from board.models.known_bad import AT_CHANGE_S
from protocol.commands import Answer, Rollback, SwitchModel, Teach
from protocol.errors import BeltsightError, InputError, MessageError
from protocol.fitness import require_fit
from protocol.manifest import Manifest
from protocol.messages import rfc3339_now
from protocol.strict import require
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

CLOSE_WITHIN_S = 5.0
KEPT_AGAIN_S = 2.0  # how often a choice that could not be kept is tried again

ModelOrder = SwitchModel | Rollback | Teach
OpenInspector = Callable[[str, str], Inspector]
"""By the model's id and, for one that is not there yet, the URL of its package. Raises: BeltsightError."""


@dataclass(frozen=True)
class ModelChangeSettings:
    trial_parts: int = 20  # for so many parts the model before stands by; 0: it is let go at once
    most_rejected: float = 0.8  # share of the trial's parts; with more rejected, the model before comes back
    remembered: Path | None = None  # file that keeps which model was commanded, for the next start
    fetched: Path | None = None  # folder for models that a command tells where to fetch; needs trusted_keys
    even_if_unfit: tuple[str, ...] = ()  # models that are taken though their export judged them unfit

    def __post_init__(self) -> None:
        require(0 <= self.trial_parts <= 100_000, "trial_parts", "must be 0..100000")
        require(0 < self.most_rejected <= 1, "most_rejected", "must be above 0 and at most 1")


@dataclass
class _Trial:
    order: ModelOrder | None  # None: it began before this start of the station
    previous: Inspector
    previous_threshold: float
    previous_found: int | None = None  # where that threshold was confirmed
    starts: int = 1
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
        *,
        unfit: Iterable[str] = (),
        disk: Disk | None = None,
        now_s: Callable[[], float] = time.monotonic,
        supervisor: Supervisor = SUPERVISOR,
    ) -> None:
        """`threshold` overrides the first model's own, and `require_threshold` has seen it; `before` is the model to
        roll back to, `unfit` are models that somebody commanded though they are that. Takes inspectors over.
        """
        self._disk, self._now_s = disk or Disk(), now_s
        self._unkept, self._keep_again_s = "", 0.0
        self.failed_trial = ""  # which model went back, and why; until another is commanded, or somebody resumes
        self.current, self.before = first, before
        self._threshold = first.manifest.threshold.value if threshold is None else threshold
        self._confirmed_found: int | None = None  # known-bad parts, at a threshold that was confirmed with too few
        self._settings, self._open = settings, open_inspector
        self._configured = first.manifest.id
        self._unfit = frozenset(unfit)
        self._trial: _Trial | None = None
        self._supervisor = supervisor
        self._opening: Supervised | None = None
        self._opening_for: ModelOrder | None = None
        self._opened: queue.SimpleQueue[tuple[ModelOrder, Inspector | str]] = queue.SimpleQueue()

    @property
    def threshold(self) -> float:
        """Of the model that judges."""
        return self._threshold

    def set_threshold(self, value: float, *, is_confirmed: bool = False) -> None:
        """Raises: MessageError for one that the model's scores cannot reach, or at which too few known-bad parts are
        found; `is_confirmed`: as few are enough, but none is not.
        """
        fault = self.current.manifest.map.threshold_fault(value)
        if fault:
            raise MessageError(f"value {fault}")
        known_bad = self.current.known_bad
        found, short = known_bad.found(value), known_bad.fault(value)
        if short and not (is_confirmed and found):
            what = f"at {value:g} only {found} of {known_bad.frames} known-bad parts are found"
            advice = "or confirm it (confirmed = true)" if found else "as nothing would be rejected"
            raise MessageError(f"{what}, {known_bad.fewest} must be: give a lower one, {advice}")
        self._threshold = value
        self._confirmed_found = found if short else None

    @property
    def fault(self) -> str:
        """Why nothing may pass: the model does not find its known-bad parts. Empty if it does."""
        return self.current.known_bad.fault(self._threshold, self._confirmed_found)

    @property
    def is_confirmed(self) -> bool:
        """Whether the threshold was confirmed though fewer known-bad parts are found than must be."""
        return self._confirmed_found is not None

    def show_known_bad(self) -> Answer | None:
        """One of them to the model that judges. The answer, when a trial ends by it."""
        self.current.show_known_bad()
        return self._go_back(self._trial, self.fault) if self._trial and self.fault else None

    def counters(self) -> dict[str, int]:
        """For the health report."""
        known_bad = self.current.known_bad
        return {"known_bad_parts": known_bad.frames, "known_bad_found": known_bad.found(self._threshold)}

    @property
    def is_changing(self) -> bool:
        """Whether a model is being opened, or on trial."""
        return self._opening is not None or self._trial is not None

    def begin(self, order: ModelOrder, teach: Callable[[], Inspector] | None = None) -> bool:
        """Open the model beside the current one, for `step` to take over. True if all is done: a trial was ended.

        `teach` makes the model that is to be opened.

        Raises: MessageError.
        """
        if isinstance(order, Rollback) and self._trial:
            self._return_to(self._trial)
            try:
                self._keep(self._choice())
            except InputError as error:
                raise MessageError(f"{self.current.manifest.id} judges again, but after a restart: {error}") from None
            return True
        if self.is_changing:
            raise MessageError("another model is being taken or on trial: wait for its end")
        model = self.before if isinstance(order, Rollback) else order.model
        url = order.url if isinstance(order, SwitchModel) else ""
        open_it = teach or partial(self._open, model, url)
        if not model:
            raise MessageError("there is no model before this one: command a model by its name")
        if model == self.current.manifest.id:
            raise MessageError(f"{model} judges already")
        self.failed_trial = ""
        self._opening_for = order
        # None: a package may be large and the way to it slow; `pull` has its own deadlines, and the line goes on
        self._opening = self._supervisor.start(
            "opening of a model",
            lambda _: self._prepare(order, model, open_it),
            silent_s=None,
            is_needed=False,
            is_once=True,
        )
        return False

    def step(self) -> Answer | None:
        """Between two parts: take over a model that is ready. The answer, when the change is made or has failed."""
        self._keep_when_due()
        try:
            order, opened = self._opened.get_nowait()
        except queue.Empty:
            return self._give_up()
        self._opening = None
        if isinstance(opened, str):
            return _answer(order, opened)
        self._trial = _Trial(order, self.current, self._threshold, self._confirmed_found)
        self.current, self._threshold, self._confirmed_found = opened, opened.manifest.threshold.value, None
        if self._settings.trial_parts == 0:
            self._end_trial()
        return replace(_answer(order, ""), reason=self._remark())

    def stand_by(self, previous: Inspector, starts: int) -> None:
        """The first model is still on trial, from before this start. Takes the inspector over."""
        self.before = ""
        self._trial = _Trial(None, previous, previous.manifest.threshold.value, starts=starts)

    @property
    def complaint(self) -> str:
        """What is wrong with the choice of the model, or with the last one; empty when nothing is."""
        return "; ".join(filter(None, (self.failed_trial, self._unkept)))

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
            self._opening.wait(CLOSE_WITHIN_S)
        with contextlib.suppress(queue.Empty):
            _, opened = self._opened.get_nowait()
            if isinstance(opened, Inspector):
                opened.close()
        if self._trial:
            self._trial.starts = max(1, self._trial.starts - 1)  # switched off on purpose: that says nothing of it
            with contextlib.suppress(InputError):
                self._keep(self._choice())
            self._trial.previous.close()
        self.current.close()

    def _remark(self) -> str:
        """What whoever commanded has to know though the change is made."""
        if self._settings.remembered or self.current.manifest.id == self._configured:
            return ""
        return f"done, but a restart goes back to {self._configured}: set [model_change] remembered"

    def _give_up(self) -> Answer | None:
        """Opening ended by what nobody expected: that is the answer, and the line goes on with its model."""
        opening, order = self._opening, self._opening_for
        if not opening or not opening.ended or not order:
            return None
        self._supervisor.leave(opening)
        self._opening = None
        return _answer(order, f"the model cannot be opened: {opening.ended}")

    def _prepare(self, order: ModelOrder, model: str, open_it: Callable[[], Inspector]) -> None:
        try:
            self._opened.put((order, self._open_and_keep(order, model, open_it)))
        except BeltsightError as error:
            self._opened.put((order, str(error)))

    def _open_and_keep(self, order: ModelOrder, model: str, open_it: Callable[[], Inspector]) -> Inspector:
        """subtle: kept before it is taken over: here, for a disk may be slow and the line must not wait for it."""
        is_confirmed = not isinstance(order, SwitchModel) or order.confirmed
        unfit = self._unfit | {model} if isinstance(order, SwitchModel) and order.even_if_unfit else self._unfit
        opened = open_it()
        try:
            require_taken(model, opened.manifest, self._settings, unfit)
            self._require_product(opened.manifest, is_confirmed=is_confirmed)
            _require_proof(opened, may_have_none=is_confirmed)
            self._unfit = unfit
            self._keep(self._choose(model, self.current.manifest.id, 1 if self._settings.trial_parts else 0))
        except InputError:
            opened.close()
            raise
        return opened

    def _require_product(self, other: Manifest, *, is_confirmed: bool) -> None:
        """subtle: a trial sees a model that rejects too much, never one that rejects too little.

        Raises: InputError for the model of another product; the state says so too, for perhaps the belt has that one.
        """
        ours = self.current.manifest.product
        if is_confirmed or other.product == ours:
            return
        self.failed_trial = (
            f"{other.id} was not taken, it is for {other.product!r} and this line's model for {ours!r}: "
            "choose the product's own model, or resume"
        )
        raise InputError(
            f"{other.id} is for {other.product!r}, this line's model for {ours!r}: take one of the product's own, or "
            "confirm the change (confirmed = true)"
        )

    def _go_back(self, trial: _Trial, why: str) -> Answer:
        tried = self.current.manifest.id
        self._return_to(trial)
        reason = f"{why}: back to {self.current.manifest.id}"
        self.failed_trial = f"{tried} did not pass its trial, {reason}: choose the product's own model, or resume"
        with contextlib.suppress(InputError):  # it is tried again, and said until then
            self._keep(self._choice())
        return _answer(trial.order, reason)

    def _return_to(self, trial: _Trial) -> None:
        self.current.close()
        self.current, self._threshold = trial.previous, trial.previous_threshold
        self._confirmed_found = trial.previous_found
        self._trial = None

    def _end_trial(self) -> None:
        if self._trial:
            self.before = self._trial.previous.manifest.id
            self._trial.previous.close()
            self._trial = None
        with contextlib.suppress(InputError):  # it is tried again, and said until then
            self._keep(self._choice())

    def _choice(self) -> Chosen:
        """What is true now."""
        trial = self._trial
        if trial:
            return self._choose(self.current.manifest.id, trial.previous.manifest.id, trial.starts)
        return self._choose(self.current.manifest.id, self.before)

    def _choose(self, model: str, before: str, trial_starts: int = 0) -> Chosen:
        return Chosen(model, before, trial_starts, tuple(sorted(self._unfit & {model, before})))

    def _keep(self, chosen: Chosen) -> None:
        """Raises: InputError if it may be lost; then what is true is tried again by `step`, until it is kept."""
        if self._settings.remembered is None:
            return
        try:
            remember_models(self._settings.remembered, chosen, self._disk)
            self._unkept = ""
        except InputError as error:
            self._unkept, self._keep_again_s = str(error), self._now_s() + KEPT_AGAIN_S
            raise

    def _keep_when_due(self) -> None:
        if self._unkept and not self._opening and self._now_s() >= self._keep_again_s:
            with contextlib.suppress(InputError):
                self._keep(self._choice())


def _require_proof(opened: Inspector, *, may_have_none: bool) -> None:
    """Raises: InputError for a model that does not find its known-bad parts, or carries none."""
    known_bad = opened.known_bad
    known_bad.show_all(opened.engines, AT_CHANGE_S)
    fault = known_bad.fault(opened.manifest.threshold.value)
    if fault:
        raise InputError(fault)
    if not known_bad.frames and not may_have_none:
        raise InputError(f"{known_bad.remark()}, or confirm the change (confirmed = true)")


def require_taken(
    model: str, manifest: Manifest, settings: ModelChangeSettings, commanded: Collection[str] = ()
) -> None:
    """Raises: ManifestError for an unfit model that neither the configuration nor who `commanded` it takes anyway."""
    if model not in settings.even_if_unfit and model not in commanded:
        anyway = f'set [model_change] even_if_unfit = ["{model}"], or deploy it with --even-if-unfit'
        require_fit(model, manifest.fitness, anyway)


def require_threshold(manifest: Manifest, value: float) -> None:
    """Of a configuration. Raises: InputError."""
    fault = manifest.map.threshold_fault(value)
    if fault:
        raise InputError(f"threshold {fault}: correct it in the line's configuration, or leave it out")


def _answer(order: ModelOrder | None, trouble: str) -> Answer:
    name = {Rollback: "rollback", Teach: "teach"}.get(type(order), "model")
    return Answer(order.id if order else "", name, not trouble, trouble, rfc3339_now())
