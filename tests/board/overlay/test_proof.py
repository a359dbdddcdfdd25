"""The line's gate is proved: nothing opens it but a window that was programmed, in time or in positions of the belt."""

from __future__ import annotations

import pytest

from board.overlay.errors import OverlayError
from board.overlay.synthesis.yosys import yosys_version
from tests.board.overlay.mutate import try_out
from tests.board.overlay.mutations import MUTATIONS, PROOF
from tests.board.overlay.proof import Circuit, broken_rule, can_open, find_solver, write_circuit

BROKEN = [mutation for mutation in MUTATIONS if mutation.test == PROOF]
FIRST_OPEN = {False: 10, True: 12}  # cycles after power-up: a limit, a mode, a window, and their ways


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> Circuit:
    try:
        find_solver(), yosys_version()
    except OverlayError as error:
        pytest.skip(str(error))
    return write_circuit(tmp_path_factory.mktemp("proof"))


def test_no_program_and_no_signal_opens_the_gate_elsewhere(circuit: Circuit) -> None:
    broken = broken_rule(circuit)
    assert not broken, broken


@pytest.mark.parametrize("by_position", [False, True])
def test_the_gate_that_is_proved_can_open(circuit: Circuit, *, by_position: bool) -> None:
    assert can_open(circuit, FIRST_OPEN[by_position], by_position=by_position)


@pytest.mark.usefixtures("circuit")
def test_a_broken_gate_is_not_proved() -> None:
    """What is said to be broken is what was."""
    assert [mutation.name for mutation, reason in try_out(BROKEN) if not reason] == []
