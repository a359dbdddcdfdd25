"""What watches over the AXI ports must itself see every broken rule, and nothing where none is broken."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from board.overlay.simulation import simulator

Row = dict[str, int]
Look = Callable[[list[Row]], str]
PORT = "m_axi_"

AR = {"arvalid": 1, "arready": 1, "araddr": 0x1000, "arlen": 1, "arsize": 3, "arburst": 1}
AW = {"awvalid": 1, "awready": 1, "awaddr": 0x1000, "awlen": 1, "awsize": 3, "awburst": 1}
R = {"rvalid": 1, "rready": 1, "rdata": 7}
W = {"wvalid": 1, "wready": 1, "wdata": 7, "wstrb": 0xFF}
B = {"bvalid": 1, "bready": 1}
R_END, W_END = {**R, "rlast": 1}, {**W, "wlast": 1}
READ, WRITE = [AR, R, R_END], [AW, W, W_END, B]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """The first rule that rows of pins break; pins that a row leaves out are 0."""
    if not shutil.which("g++"):
        pytest.skip("the rules are compiled with g++, which is not installed")
    library = tmp_path_factory.mktemp("rules") / "rules.so"
    source = Path(__file__).with_name("rules_alone.cpp")
    command = ["g++", "-std=gnu++17", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{simulator.HERE}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    rules = ctypes.CDLL(str(library))
    rules.rules_pins.restype = rules.rules_look.restype = ctypes.c_char_p
    names = rules.rules_pins().decode().split()

    def run(rows: list[Row]) -> str:
        assert {name for row in rows for name in row} <= set(names)
        pins = np.array([[row.get(name, 0) for name in names] for row in rows], np.uint64)
        text: bytes = rules.rules_look(pins.ctypes.data_as(ctypes.c_void_p), len(rows))
        return text.decode()

    return run


def memory(*rows: Row) -> list[Row]:
    return [{name if name == "irq" else PORT + name: value for name, value in row.items()} for row in rows]


def registers(*rows: Row) -> list[Row]:
    return [{f"s_axi_{name}": value for name, value in row.items()} for row in rows]


def test_what_keeps_to_the_rules_is_not_blamed(look: Look) -> None:
    four = [AR] * 4 + [R, R_END] * 4
    behind = [AW, AW, W, W_END, {**W, **B}, W_END, {**AR, **B}, R, R_END, {"irq": 1}]
    full = [{**AR, "arlen": 15, "araddr": 0x1F80}, *[R] * 15, R_END]
    slow = [{**AW, "awready": 0}, AW, {**W, "wready": 0}, W, W_END, B]
    waits = {**AW, "awready": 0}
    early = [
        {**waits, **W},
        waits,
        {**waits, **W_END},
        AW,
        B,
        {**waits, **W},
        AW,
        W_END,
        B,
        {**waits, **W},
        {**AW, **W_END},
        B,
    ]
    for rows in (READ, WRITE, four, behind, full, slow, early, READ * 3 + WRITE * 3):
        assert look(memory(*rows)) == ""
    write = registers(
        {"awvalid": 1, "awready": 1}, {"wvalid": 1, "wready": 1}, {"bvalid": 1}, {"bvalid": 1, "bready": 1}
    )
    read = registers({"arvalid": 1, "arready": 1}, {"rvalid": 1, "rdata": 5}, {"rvalid": 1, "rready": 1, "rdata": 5})
    assert look(write + read + write[1::-1] + write[2:]) == ""


@pytest.mark.parametrize(
    ("rows", "cycle", "rule"),
    [
        ([{**AR, "arready": 0}, {**AR, "araddr": 0x1008}], 1, "a read address changed before it was taken"),
        ([{**AR, "arready": 0}, {**AR, "arlen": 0}], 1, "a read address changed before it was taken"),
        ([{**AR, "arready": 0}, {}], 1, "a read address changed before it was taken"),
        ([{**AW, "awready": 0}, {**AW, "awaddr": 0x1008}], 1, "a write address changed before it was taken"),
        ([{**AW, "awready": 0}, {}], 1, "a write address changed before it was taken"),
        ([AW, {**W, "wready": 0}, {**W, "wdata": 8}], 2, "write data changed before it was taken"),
        ([AW, {**W, "wready": 0}, W_END], 2, "write data changed before it was taken"),
        ([AR, {**R, "rready": 0}], 1, "read data had to wait, though a burst is asked for only when there is room"),
        ([{**AR, "arlen": 16}], 0, "a burst is longer than 16 beats"),
        ([{**AR, "arsize": 2}], 0, "a burst is not of rising beats of 8 bytes"),
        ([{**AW, "awburst": 0}], 0, "a burst is not of rising beats of 8 bytes"),
        ([{**AR, "araddr": 0x1004}], 0, "a burst does not begin at a multiple of 8 bytes"),
        ([{**AR, "araddr": 0x1078}], 0, "a burst crosses a multiple of 128 bytes"),
        ([{**AW, "awaddr": 0x1008, "awlen": 15}], 0, "a burst crosses a multiple of 128 bytes"),
        ([{**AR, "araddr": 0x2000}], 0, "a burst lies outside the segments"),
        ([{**AW, "awaddr": 0x0FF0}], 0, "a burst lies outside the segments"),
        ([AR] * 5, 4, "more than 4 read bursts are under way"),
        ([AW, W, W_END] * 5, 12, "more than 4 write bursts are under way"),
        ([W], 0, "write data without its address"),
        ([{**AW, "awready": 0}] * 5, 4, "the data of a write waits until its address is taken"),
        ([{**AW, **W, "awready": 0}] * 3, 1, "the last beat of a write is marked wrongly"),
        (
            [{**AW, **W, "awready": 0}, {**AW, **W_END, "awready": 0}, {**AW, **W, "awready": 0}],
            2,
            "write data without its address",
        ),
        (
            [{**AW, **W, "awready": 0}, {**AW, **W_END, "awready": 0}, {**AW, **B, "awready": 0}],
            2,
            "the memory answers a write that is not over",
        ),
        ([AW, W_END], 1, "the last beat of a write is marked wrongly"),
        ([AW, W, W], 2, "the last beat of a write is marked wrongly"),
        ([AW, {**W, "wstrb": 0x7F}], 1, "a beat is not written whole"),
        ([AW, {}, {"wready": 1}], 2, "the memory had to wait for the data of a write"),
        ([AW, W, W_END, {"bvalid": 1}], 3, "an answer to a write had to wait"),
        ([AR, {"irq": 1}], 1, "the interrupt is raised while a burst is under way"),
        ([AW, W, W_END, {"irq": 1}], 3, "the interrupt is raised while a burst is under way"),
        # the memory's own part
        ([R], 0, "the memory sends what nobody has asked for"),
        ([AR, R_END], 1, "the memory marks the last beat of a read wrongly"),
        ([AW, W, B], 2, "the memory answers a write that is not over"),
    ],
)
def test_a_broken_rule_of_the_memory_port_is_named(look: Look, rows: list[Row], cycle: int, rule: str) -> None:
    assert look(memory(*rows, *READ)) == f"cycle {cycle}: {rule}"


@pytest.mark.parametrize(
    ("rows", "cycle", "rule"),
    [
        ([{"awvalid": 1, "awready": 1}, {"bvalid": 1}], 1, "a register write is answered that was not asked for"),
        ([{"wvalid": 1, "wready": 1}, {"bvalid": 1}], 1, "a register write is answered that was not asked for"),
        (
            [{"awvalid": 1, "awready": 1, "wvalid": 1, "wready": 1}, B, B],
            2,
            "a register write is answered that was not asked for",
        ),
        (
            [{"awvalid": 1, "awready": 1, "wvalid": 1, "wready": 1}, {"bvalid": 1}, {}],
            2,
            "the answer to a register write changed before it was taken",
        ),
        ([{"arvalid": 1}, {"arvalid": 1, "araddr": 4}], 1, "the host changed a request before it was taken"),
        ([{"rvalid": 1}], 0, "a register read is answered that was not asked for"),
        (
            [{"arvalid": 1, "arready": 1}, {"rvalid": 1, "rdata": 1}, {"rvalid": 1, "rdata": 2}],
            2,
            "a register's value changed before it was taken",
        ),
        ([{"arvalid": 1, "arready": 1}, {"rvalid": 1, "rresp": 2}], 1, "a register access is answered with an error"),
    ],
)
def test_a_broken_rule_of_the_register_port_is_named(look: Look, rows: list[Row], cycle: int, rule: str) -> None:
    assert look(registers(*rows)) == f"cycle {cycle}: {rule}"
