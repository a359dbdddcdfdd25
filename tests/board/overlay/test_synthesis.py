"""The overlay, synthesised by Yosys: what it takes of the chip, its longest paths, its registers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from board.overlay.hardware.overlay import NAME
from board.overlay.hardware.two_port import MODULE, TEXT
from board.overlay.simulation.design import find_verilog
from board.overlay.synthesis import delays
from board.overlay.synthesis.netlist import Cell, Netlist, Pin
from board.overlay.synthesis.pipeline import ARRAY, missing_registers
from board.overlay.synthesis.report import MOST_LOGIC_NS, MOST_ROUTED_NS, examine
from board.overlay.synthesis.resources import BUDGET, count_resources, exceeded
from board.overlay.synthesis.timing import Timing, no_wires
from board.overlay.synthesis.wires import BESIDE, EXCUSED, MOST_LOADS, MOST_RESETS, broadcasts, excused
from board.overlay.synthesis.yosys import synthesise

BUILD = Path(__file__).resolve().parents[3] / "build" / "overlay"
ARRAY_DSPS = 192


def flip_flop(name: str, d: int, q: int) -> Cell:
    return Cell(name, "FDRE", {}, {Pin("C", 0): 1, Pin("D", 0): d}, {Pin("Q", 0): q})


def lut(name: str, inputs: list[int], output: int) -> Cell:
    pins = {Pin(f"I{place}", 0): net for place, net in enumerate(inputs)}
    return Cell(name, f"LUT{len(inputs)}", {}, pins, {Pin("O", 0): output})


def netlist(*cells: Cell) -> Netlist:
    return Netlist(cells, {}, {}, {net: f"n{net}" for cell in cells for net in cell.outputs.values()})


def test_a_path_is_the_sum_of_its_cells_and_nets() -> None:
    one = netlist(flip_flop("a", 9, 2), lut("x", [2], 3), lut("y", [3, 2], 4), flip_flop("b", 4, 5))
    (path, *_) = Timing(one).worst_paths(1)
    nets = delays.wire(2, 0) + delays.wire(1, 0)  # and none from the last table into its own flip-flop
    assert path.delay_ns == pytest.approx(delays.FF_CLOCK_TO_Q + nets + 2 * delays.LUT + delays.FF_SETUP["D"])
    assert (path.end, path.levels, path.hops[0].net) == ("n5.D", 2, "n2")


def test_a_carry_chain_is_fast_inside_and_counts_once() -> None:
    chain = [
        Cell(f"c{i}", "CARRY4", {}, {Pin("S", 0): 2, Pin("CI", 0): 10 + i}, {Pin("CO", 3): 11 + i, Pin("O", 0): 30 + i})
        for i in range(3)
    ]
    (path, *_) = Timing(netlist(flip_flop("a", 9, 2), *chain, flip_flop("b", 32, 5))).worst_paths(1)
    inside = delays.CARRY["S", 0, "CO", 3] + delays.CARRY["CI", 0, "CO", 3] + delays.CARRY["CI", 0, "O", 0]
    want = delays.FF_CLOCK_TO_Q + delays.wire(3, 0) + inside + delays.FF_SETUP["D"]
    assert path.delay_ns == pytest.approx(want)
    assert path.levels == 1


def test_a_combinational_loop_is_refused() -> None:
    with pytest.raises(Exception, match="combinational loop"):
        Timing(netlist(lut("x", [3], 2), lut("y", [2], 3)))


# sinks of the nets of a path, those of them that are DSPs or block RAMs, and what routing took in nanoseconds
ROUTED = [
    ([(128, 0), (240, 0), (12, 12)], 15.0),
    ([(10, 0), (69, 0), (4, 0)], 15.0),
    ([(130, 0), (12, 12)], 14.1),
    ([(1236, 0), (11363, 0)], 13.4),
    ([(1056, 0), (2, 0), (1, 0)], 11.3),
]


@pytest.mark.parametrize(("nets", "routed_ns"), ROUTED)
def test_long_wires_are_those_of_a_router(nets: list[tuple[int, int]], routed_ns: float) -> None:
    assert sum(delays.wire(*net) for net in nets) == pytest.approx(routed_ns, rel=0.4)


def test_long_wires_are_right_on_the_whole() -> None:
    estimated = sum(delays.wire(*net) for nets, _ in ROUTED for net in nets)
    assert estimated == pytest.approx(sum(routed_ns for _, routed_ns in ROUTED), rel=0.1)


def test_the_same_path_without_wires_is_its_logic() -> None:
    one = netlist(flip_flop("a", 9, 2), *(lut(f"x{i}", [2], 3 + i) for i in range(100)), flip_flop("b", 3, 200))
    (with_wires, *_), (logic, *_) = (Timing(one, wires).worst_paths(1) for wires in (delays.wire, no_wires))
    assert logic.delay_ns == pytest.approx(delays.FF_CLOCK_TO_Q + delays.LUT + delays.FF_SETUP["D"])
    assert with_wires.delay_ns == pytest.approx(logic.delay_ns + delays.wire(100, 0))


@pytest.mark.parametrize("too_many", [0, 1])
def test_a_broadcast_is_named(too_many: int) -> None:
    loads = [lut(f"x{i}", [2], 10 + i) for i in range(MOST_LOADS + too_many)]
    assert len(broadcasts(netlist(flip_flop("a", 9, 2), *loads))) == too_many


@pytest.mark.parametrize("too_many", [0, 1])
def test_a_broadcast_may_have_a_reason(too_many: int) -> None:
    known = EXCUSED[0]
    loads = [lut(f"x{i}", [2], 10 + i) for i in range(known.most + too_many)]
    one = replace(netlist(flip_flop("a", 9, 2), *loads), names={2: known.net})
    assert (len(broadcasts(one)), len(excused(one))) == (too_many, 1 - too_many)


def test_a_broadcast_without_a_name_is_told_by_what_its_driver_hears() -> None:
    loads = [flip_flop(f"f{i}", 3, 10 + i) for i in range(MOST_LOADS + 1)]
    told = broadcasts(replace(netlist(lut("a", [9, 2], 3), *loads), names={2: "engine.state[1]"}))
    assert told == [f"a wire behind engine.state goes to {MOST_LOADS + 1} places, at most {MOST_LOADS}"]


def test_no_excuse_is_left_over(whole: Netlist) -> None:
    assert len(excused(whole)) >= len(EXCUSED)


@pytest.mark.parametrize(
    ("driver", "loads", "named"),
    [
        (flip_flop("a", 9, 2), BESIDE * MOST_RESETS, 0),
        (flip_flop("a", 9, 2), BESIDE * MOST_RESETS + 1, 1),
        (lut("a", [9], 2), BESIDE * MOST_LOADS, 0),
        (lut("a", [9], 2), BESIDE * MOST_LOADS + 1, 1),  # a reset that comes from logic has no cycle of its own
    ],
)
def test_a_leaf_of_the_resets_tree_may_have_more(driver: Cell, loads: int, named: int) -> None:
    cells = (replace(flip_flop(f"f{i}", 8, 10 + i), inputs={Pin("D", 0): 8, Pin("R", 0): 2}) for i in range(loads))
    found = broadcasts(netlist(driver, *cells))
    assert len([problem for problem in found if problem.startswith("n2 ")]) == named


COPIES = "module top(input clk, d, output [1:0] q);\n"


@pytest.mark.parametrize(("attribute", "flip_flops"), [("", 1), ('(* keep = "true" *)', 2)])
def test_registers_that_are_kept_stay_as_many(tmp_path: Path, attribute: str, flip_flops: int) -> None:
    pytest.importorskip("pyosys")
    body = f"{attribute} reg a; {attribute} reg b; always @(posedge clk) begin a<=d; b<=d; end assign q = {{a, b}};"
    made = synthesise(f"{COPIES}{body}\nendmodule\n", "top", tmp_path)
    assert len(list(made.of_kind("FDRE"))) == flip_flops


def test_two_ports_are_one_block_ram(tmp_path: Path) -> None:
    pytest.importorskip("pyosys")
    made = synthesise(TEXT, MODULE, tmp_path)
    assert count_resources(made) == {"LUT": 0, "FF": 64, "BRAM36": 4, "DSP48E1": 0}


MULTIPLY = "module top(input clk, input signed [7:0] a, b, input signed [19:0] c, output reg signed [19:0] p);\n"


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ("reg signed [7:0] x, y; reg signed [15:0] m; always @(posedge clk) begin x<=a; y<=b; m<=x*y; p<=m+c; end", 0),
        ("reg signed [7:0] x, y; always @(posedge clk) begin x<=a; y<=b; p<=x*y+c; end", 1),
    ],
)
def test_a_product_is_registered_before_it_is_added(tmp_path: Path, body: str, problems: int) -> None:
    pytest.importorskip("pyosys")
    found = missing_registers(synthesise(f"{MULTIPLY}{body}\nendmodule\n", "top", tmp_path))
    assert len(found) == problems


@pytest.fixture(scope="module")
def whole() -> Netlist:
    """Kept in build/overlay while the design does not change."""
    pytest.importorskip("pyosys")
    return synthesise(find_verilog(BUILD), NAME, BUILD)


def test_the_overlay_fits_its_budget_and_its_clock(whole: Netlist) -> None:
    report = examine(whole)
    assert report.problems == ()
    assert 0 < report.paths[0].delay_ns <= MOST_ROUTED_NS
    assert 0 < report.logic[0].delay_ns <= MOST_LOGIC_NS
    assert ARRAY_DSPS <= report.used["DSP48E1"] <= ARRAY_DSPS + 3  # the rest are the address products
    assert "| LUT |" in report.as_markdown()


@pytest.mark.parametrize("register", ["AREG", "BREG", "MREG", "PREG"])
def test_a_multiplier_without_one_of_its_registers_is_named(whole: Netlist, register: str) -> None:
    array = [cell for cell in whole.of_kind("DSP48E1") if ARRAY in cell.name]
    assert len(array) == ARRAY_DSPS
    worse = replace(array[5], parameters={**array[5].parameters, register: 0})
    problems = missing_registers(replace(whole, cells=(*(cell for cell in whole.cells if cell is not array[5]), worse)))
    assert len(problems) == 1
    assert register in problems[0]


def test_logic_behind_a_memory_is_named(whole: Netlist) -> None:
    memory = next(cell for cell in whole.of_kind("RAMB36E1") if "activations" in cell.name)
    net = next(net for pin, net in memory.outputs.items() if pin.port == "DOADO")
    problems = missing_registers(replace(whole, cells=(*whole.cells, lut("x", [net], -1))))
    assert any(memory.name in problem for problem in problems)


@pytest.mark.parametrize("resource", list(BUDGET))
def test_what_exceeds_its_budget_is_named(whole: Netlist, resource: str) -> None:
    used = count_resources(whole)
    assert exceeded(used) == []
    (problem,) = exceeded({**used, resource: BUDGET[resource].limit + 1})
    assert problem.startswith(resource)
