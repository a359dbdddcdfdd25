"""What is on the disk of a choice of model, whatever happens."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from board.disk import Disk
from board.models.choice import MAX_TRIAL_STARTS, Chosen, recall_models, remember_models, resume_trial
from protocol.errors import InputError

KEEPER = """
import sys
from pathlib import Path
from board.disk import Disk
from board.models.choice import Chosen, remember_models
for number in range(10**9):
    remember_models(Path(sys.argv[1]), Chosen(f"model-{number}"), Disk())
    print(number, flush=True)
"""


@pytest.mark.parametrize("answers", [1, 20])
def test_a_killed_station_has_kept_what_it_answered(tmp_path: Path, answers: int) -> None:
    command = [sys.executable, "-c", KEEPER, str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = [process.stdout.readline() for _ in range(answers)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    kept = recall_models(tmp_path / "model")
    assert kept
    last = int(said[-1])
    assert kept.model in (f"model-{last}", f"model-{last + 1}")


class Killed(BaseException):
    """The power is gone."""


class FalteringDisk(Disk):
    """The power goes before its n-th call."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def _call(self) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1

    def write(self, path: Path, data: bytes) -> None:
        if self._left == 0:
            path.write_bytes(data[:7])  # what a power cut leaves
        self._call()
        super().write(path, data)

    def replace(self, fresh: Path, path: Path) -> None:
        self._call()
        super().replace(fresh, path)

    def sync_folder(self, folder: Path) -> None:
        self._call()
        super().sync_folder(folder)


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_what_is_cut_off_leaves_the_one_or_the_other(tmp_path: Path, calls: int) -> None:
    old, new = Chosen("first"), Chosen("second", "first", 1)
    remember_models(tmp_path / "model", old, Disk())
    with pytest.raises(Killed):
        remember_models(tmp_path / "model", new, FalteringDisk(calls))
    assert recall_models(tmp_path / "model") == (old if calls < 2 else new)
    remember_models(tmp_path / "model", new, Disk())
    assert recall_models(tmp_path / "model") == new


def test_a_choice_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match=r"cannot be kept in .* \(Is a directory\): see to its disk"):
        remember_models(tmp_path / "model", Chosen("first"), Disk())


def test_a_model_that_takes_the_station_down_again_and_again_is_let_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, chosen = tmp_path / "model", Chosen("second", "first", 1)
    for starts in range(2, MAX_TRIAL_STARTS + 1):
        chosen = resume_trial(path, chosen, Disk())
        assert chosen == recall_models(path) == Chosen("second", "first", starts)
    assert resume_trial(path, chosen, Disk()) == recall_models(path) == Chosen("first", "second")
    unfit = Chosen("second", "first", 2, ("second",))
    assert resume_trial(path, unfit, Disk()) == recall_models(path) == Chosen("first", "second", 0, ("second",))
    assert "while second was on trial: back to first" in capsys.readouterr().err


def test_what_has_proved_itself_is_no_trial(tmp_path: Path) -> None:
    assert resume_trial(tmp_path / "model", Chosen("second", "first"), Disk()) == Chosen("second", "first")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"first", b'{"model": 1}', b"\xff", b" " * 1024 + b'{"model": "first"}', b'{"model": ".x"}'),
        *(b'{"model": "x/../../first"}', b'{"model": "a\\\\b"}', b'{"model": "first", "before": "../x"}'),
    ],
)
def test_a_memory_that_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(InputError, match="remove it"):
        recall_models(tmp_path / "model")
