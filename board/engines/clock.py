"""The clock of the programmable logic: never faster than the bitstream was made for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol.errors import EngineError

STEP = 0.005  # by which a slower one is tried: the divisors of 1000 MHz lie further apart
LOWEST = 0.5
MOST_DIVISOR = 63  # each of the two has six bits (UG585, FPGA0_CLK_CTRL)
PYNQS_MHZ = 100.0  # which pynq sets where a .hwh has the clock disabled
EXACTNESS = 1e-5  # pynq tells a clock to a millionth of a megahertz


def find_clock_mhz(bitstream: Path, wanted_mhz: float) -> float:
    """`wanted_mhz`, or what the sidecar of `beltsight overlay` beside the bitstream says, if that is slower.

    Raises: EngineError for a sidecar that cannot be read.
    """
    sidecar = bitstream.with_suffix(".json")
    if not sidecar.is_file():
        return wanted_mhz
    try:
        made_for_mhz = float(json.loads(sidecar.read_text(encoding="utf-8"))["clock_mhz"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise EngineError(f"{sidecar} says no clock_mhz ({reason}): make both with `beltsight overlay`") from None
    if not 0 < made_for_mhz < 1000:
        raise EngineError(f"{sidecar} says {made_for_mhz:g} MHz: make both with `beltsight overlay`")
    return min(wanted_mhz, made_for_mhz)


def check_hwh_clock(clocks: Any, asked: Mapping[str, int], most_mhz: float) -> None:
    """Before pynq sets it and loads the bitstream. `asked`: pynq's clock 0 of the .hwh.

    Raises: EngineError where it is faster than `most_mhz`.
    """
    hwh_mhz = PYNQS_MHZ
    if asked["enable"]:
        hwh_mhz = _measure_source_mhz(clocks) / (asked["divisor0"] * asked["divisor1"])
    if hwh_mhz > most_mhz * (1 + EXACTNESS):
        raise EngineError(
            f"the .hwh asks for {hwh_mhz:.6g} MHz and the bitstream is made for {most_mhz:g}: "
            "copy both, and the .json, from one `beltsight overlay`"
        )


def _measure_source_mhz(clocks: Any) -> float:
    """By the slowest clock: what is loaded now is slowed for a moment, never hurried."""
    before_mhz = clocks.fclk0_mhz
    clocks.set_pl_clk(0, MOST_DIVISOR, MOST_DIVISOR)
    source_mhz = float(clocks.fclk0_mhz) * MOST_DIVISOR**2
    clocks.fclk0_mhz = before_mhz
    return source_mhz


def set_clock(clocks: Any, most_mhz: float) -> None:
    """`clocks`: those of pynq, which take the nearest that they can divide, also a faster one.

    Raises: EngineError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynq's, that it is not exactly what was asked for
        wanted_mhz = most_mhz
        while wanted_mhz > LOWEST * most_mhz:
            clocks.fclk0_mhz = wanted_mhz
            if 0 < clocks.fclk0_mhz <= most_mhz * (1 + EXACTNESS):
                return
            wanted_mhz -= STEP * most_mhz
    raise EngineError(f"no clock of at most {most_mhz:g} MHz can be divided: choose another [engines.fpga] clock_mhz")
