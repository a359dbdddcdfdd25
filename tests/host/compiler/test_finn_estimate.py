"""FINN+ is asked about the very convolutions of a network, and where it is missing one line says so."""

from __future__ import annotations

import subprocess
import sys
from math import prod
from pathlib import Path

import pytest

from host.compiler.finn_estimate import MOST_DSP, check_plain, estimate, is_installed, make_stages
from host.export.trivial import brightness_net
from host.export.untrained import make_untrained
from host.integers.arithmetic import IntegerNet, costs
from host.learning.network import Widths
from protocol.errors import EXIT_BAD_INPUT, InputError

ROOT = Path(__file__).resolve().parents[3]
NET = make_untrained(Widths((16, 16, 32, 16, 16), 16, 16), (64, 96))


def macs_of_products(net: IntegerNet) -> dict[str, int]:
    """By the attributes of the matrix products."""
    found = {}
    for node in make_stages(net).graph.node:
        if node.op_type == "MVAU_rtl":
            values = {item.name: prod(item.ints) if item.ints else item.i for item in node.attribute}
            found[node.name.removesuffix("_out")] = values["MW"] * values["MH"] * values["numInputVectors"]
    return found


def test_every_convolution_becomes_a_stage_of_its_size() -> None:
    assert macs_of_products(NET) == {cost.layer: cost.macs for cost in costs(NET) if cost.macs}


def test_what_finn_has_no_stage_for_is_refused_by_name() -> None:
    check_plain(brightness_net())
    with pytest.raises(InputError, match=r"layer add \(Add\): FINN\+ has no stage"):
        check_plain(NET)


@pytest.mark.skipif(is_installed(), reason="FINN+ is installed")
def test_without_finn_one_line_says_what_to_install() -> None:
    command = [sys.executable, "-m", "host.compiler.finn_estimate", "models/bottle-128"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_BAD_INPUT
    assert done.stderr.startswith("beltsight: FINN+ is not installed: pip install")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not is_installed(), reason="FINN+ is not installed")
def test_an_estimate_is_possible_on_the_chip() -> None:
    """No more than two products a multiplier and cycle."""
    found = estimate(NET)
    assert 0 < found.dsp <= MOST_DSP
    assert found.cycles * found.dsp * 2 >= sum(cost.macs for cost in costs(NET))
