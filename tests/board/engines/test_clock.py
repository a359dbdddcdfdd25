"""The logic is never clocked faster than its bitstream was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from board.engines.clock import check_hwh_clock, find_clock_mhz, set_clock
from protocol.errors import EngineError


class Clocks:
    """As pynq's: the nearest that can be divided from the source, from below or from above."""

    def __init__(self, source_mhz: float = 1000.0) -> None:
        self.source_mhz, self._divisor, self.fastest_mhz = source_mhz, 10, 0.0

    @property
    def fclk0_mhz(self) -> float:
        return round(self.source_mhz / self._divisor, 6)

    @fclk0_mhz.setter
    def fclk0_mhz(self, wanted: float) -> None:
        self._set(min(range(1, 4000), key=lambda divisor: abs(self.source_mhz / divisor - wanted)))

    def set_pl_clk(self, number: int, first: int, second: int) -> None:
        if number or not (0 < first < 64 and 0 < second < 64):
            raise ValueError("no such clock")
        self._set(first * second)

    def _set(self, divisor: int) -> None:
        self._divisor = divisor
        self.fastest_mhz = max(self.fastest_mhz, self.fclk0_mhz)


@pytest.mark.parametrize(
    ("most", "got"), [(100.0, 100.0), (58.0, 1000 / 18), (62.4, 1000 / 17), (99.9, 1000 / 11), (25.0, 25.0)]
)
def test_the_clock_is_the_fastest_that_is_not_too_fast(most: float, got: float) -> None:
    clocks = Clocks()
    set_clock(clocks, most)
    assert clocks.fclk0_mhz == pytest.approx(got)


def test_a_clock_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(
        EngineError, match=r"no clock of at most 100 MHz can be divided: choose another \[engines\.fpga\]"
    ):
        set_clock(Clocks(source_mhz=1e9), 100.0)


ASKED = [
    ((5, 2), 100.0),
    ((2, 5), 100.0),
    ((1, 8), 125.0),
    ((8, 1), 125.0),
    ((18, 1), 1000 / 18),
    ((63, 63), 1000 / 3969),
]


@pytest.mark.parametrize(("divisors", "asked_mhz"), ASKED)
@pytest.mark.parametrize("most_mhz", [100.0, 1000 / 18, 50.0])
def test_a_hwh_that_asks_for_a_faster_clock_is_refused_before_it_is_set(
    divisors: tuple[int, int], asked_mhz: float, most_mhz: float
) -> None:
    clocks = Clocks()
    asked = {"enable": 1, "divisor0": divisors[0], "divisor1": divisors[1]}
    if asked_mhz > most_mhz:
        with pytest.raises(EngineError, match=rf"asks for {asked_mhz:.6g} MHz and .* made for {most_mhz:g}"):
            check_hwh_clock(clocks, asked, most_mhz)
    else:
        check_hwh_clock(clocks, asked, most_mhz)
    assert clocks.fclk0_mhz == 100.0
    assert clocks.fastest_mhz <= 100.0


def test_a_hwh_without_this_clock_gets_that_of_pynq() -> None:
    asked = {"enable": 0, "divisor0": 63, "divisor1": 63}
    check_hwh_clock(Clocks(), asked, 100.0)
    with pytest.raises(EngineError, match="asks for 100 MHz"):
        check_hwh_clock(Clocks(), asked, 58.0)


@pytest.mark.parametrize(("wanted", "got"), [(100.0, 58.0), (50.0, 50.0)])
def test_the_sidecar_is_heeded_and_a_slower_wish_too(tmp_path: Path, wanted: float, got: float) -> None:
    bitstream = tmp_path / "beltsight.bit"
    assert find_clock_mhz(bitstream, wanted) == wanted
    bitstream.with_suffix(".json").write_text('{"clock_mhz": 58}', encoding="utf-8")
    assert find_clock_mhz(bitstream, wanted) == got


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "7",
        '{"clock_mhz": "fast"}',
        '{"clock_mhz": null}',
        '{"clock_mhz": 0}',
        '{"clock_mhz": -5}',
        '{"clock_mhz": NaN}',
    ],
)
def test_a_sidecar_that_says_no_clock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "beltsight.json").write_text(text, encoding="utf-8")
    with pytest.raises(EngineError, match=r"beltsight\.json says .*make both with `beltsight overlay`") as caught:
        find_clock_mhz(tmp_path / "beltsight.bit", 100.0)
    assert "\n" not in str(caught.value)
