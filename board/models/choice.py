"""Which model judges after the next start: on the disk before anybody is told that it was changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from board.disk import Disk, replace_file
from board.log import say
from protocol.errors import InputError, MessageError
from protocol.messages import decode_json

MAX_CHOSEN_BYTES = 1024
MAX_TRIAL_STARTS = 2  # a model on trial that took the station down with it twice is not started a third time


@dataclass(frozen=True)
class Chosen:
    """Models that were commanded: the one that judges, and the one before."""

    model: str
    before: str = ""
    trial_starts: int = 0  # how often the station began this trial of `model`; 0: it is none
    unfit: tuple[str, ...] = ()  # of these two, those that somebody commanded though they are unfit


def remember_models(path: Path, chosen: Chosen, disk: Disk) -> None:
    """In one step: whatever happens, the file holds this choice or the one before.

    Raises: InputError if it may be lost.
    """
    try:
        replace_file(path, _encode(chosen), disk)
    except OSError as error:
        raise InputError(f"the choice of model cannot be kept in {path} ({error.strerror}): see to its disk") from None


def _encode(chosen: Chosen) -> bytes:
    """subtle: a station of before, to which an update may go back, knows nothing of `unfit`."""
    content = asdict(chosen)
    if not chosen.unfit:
        del content["unfit"]
    return (json.dumps(content) + "\n").encode()


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


def resume_trial(path: Path, chosen: Chosen, disk: Disk) -> Chosen:
    """The choice to start with, when the station ended during a trial. Raises: InputError."""
    if chosen.trial_starts == 0:
        return chosen
    if chosen.trial_starts < MAX_TRIAL_STARTS:
        again = replace(chosen, trial_starts=chosen.trial_starts + 1)
    else:
        again = Chosen(chosen.before, chosen.model, unfit=chosen.unfit)
        ends = f"the station ended {chosen.trial_starts} times while {chosen.model} was on trial"
        say(f"{ends}: back to {again.model}", level="WARNING")
    try:
        remember_models(path, again, disk)
    except InputError as error:  # it starts with what is right, and may begin one trial more
        say(str(error), level="WARNING")
    return again
