"""The line's registers, on their own bus: time, LEDs, buttons, light barrier and gate behind them."""

from __future__ import annotations

from typing import Any

import pytest

from board.overlay.hardware.line import LineIO
from board.overlay.registers import (
    BY_POSITION,
    ENCODER_QUADRATURE,
    MOTION_SILENT,
    OFFSETS,
    REFUSED_LONG,
    REFUSED_MOTION,
    REFUSED_PAST,
    timer_table,
    timer_version,
)
from tests.board.overlay.clocked import simulate
from tests.board.overlay.test_isa import DOCUMENT

FILTER_CYCLES = 5
PIN_CYCLES = 3  # the most that a pin's change takes to be seen
PLAIN = {"LEDS": 15, "BARRIER_FILTER": 0xFFFF_FFFF, "GATE_LOW": 0xFFFF_FFFF, "GATE_HIGH": 0xFFFF_FFFF}
PLAIN |= {"TIMER_MARK": 0xFFFF_FFFF, "GATE_LIMIT": 0xFFFF_FFFF, "PASSAGE_FILTER": 0xFFFF_FFFF}
PLAIN |= {"ENCODER_MODE": 7, "ENCODER_FILTER": 0xFFFF, "ENCODER_SILENCE": 0xFFFF_FFFF, "ENCODER_BACK": 0xFFFF}


class Host:
    """What the AXI4-Lite slave does with the bus: a strobe with an address, and data that stay for two cycles."""

    def __init__(self, ctx: Any, part: LineIO) -> None:
        self.ctx, self.part, self.turn = ctx, part, 0

    async def tick(self, cycles: int = 1) -> None:
        await self.ctx.tick().repeat(cycles)

    async def write(self, name: str, value: int) -> None:
        self.ctx.set(self.part.write_address, OFFSETS[name])
        self.ctx.set(self.part.write_data, value)
        self.ctx.set(self.part.write, 1)
        await self.tick()
        self.ctx.set(self.part.write, 0)
        await self.tick(2)

    async def read(self, name: str) -> int:
        self.ctx.set(self.part.read_address, OFFSETS[name])
        await self.tick()
        self.ctx.set(self.part.read, 1)
        value = int(self.ctx.get(self.part.read_data))
        await self.tick()
        self.ctx.set(self.part.read, 0)
        return value

    async def interrupt(self, *, level: int = 1, cycles: int = 3 * FILTER_CYCLES) -> int:
        """The time when it began; then the beam is free for long."""
        began = int(self.ctx.get(self.part.time))
        self.ctx.set(self.part.barrier_pin, level)
        await self.tick(cycles)
        self.ctx.set(self.part.barrier_pin, 1 - level)
        await self.tick(2 * FILTER_CYCLES + PIN_CYCLES)
        return began

    async def move_belt(self, counts: int) -> None:
        """Forward, four counts a turn of the wheel."""
        for _ in range(counts):
            self.turn += 1
            self.ctx.set(self.part.encoder_pins, (0b00, 0b01, 0b11, 0b10)[self.turn % 4])
            await self.tick(2 * PIN_CYCLES)

    async def window(self, start: int, cycles: int) -> None:
        for name, value in (("GATE_LOW", start & 0xFFFF_FFFF), ("GATE_HIGH", start >> 32), ("GATE_CYCLES", cycles)):
            await self.write(name, value)


def test_time_counts_every_cycle_and_is_read_in_two_halves() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        for cycle in range(5):
            assert ctx.get(part.time) == cycle
            await host.tick()
        ctx.set(part.time, (7 << 32) - 2)
        assert await host.read("TIME_LOW") == 0xFFFF_FFFF
        await host.tick(20)
        assert await host.read("TIME_HIGH") == 6  # of the same moment
        assert await host.read("TIME_LOW") < 30
        assert await host.read("TIME_HIGH") == 7

    simulate(part, bench)


def test_registers_keep_what_is_written() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        for name in PLAIN:
            assert await host.read(name) == 0
        for pattern in (0xA5C3_1E78, 0x5A3C_E187):
            for shift, (name, mask) in enumerate(PLAIN.items()):
                await host.write(name, (pattern >> shift) & mask)
            for shift, (name, mask) in enumerate(PLAIN.items()):
                assert await host.read(name) == (pattern >> shift) & mask
        assert await host.read("TIMER_VERSION") == timer_version()

    simulate(part, bench)


def test_leds_and_buttons() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        for value in (5, 10, 0):
            ctx.set(part.buttons_pin, value)
            await host.write("LEDS", value)
            await host.tick(PIN_CYCLES)
            assert ctx.get(part.leds) == value
            assert await host.read("BUTTONS") == value

    simulate(part, bench)


@pytest.mark.parametrize("invert", [0, 1])
def test_interruptions_are_read_one_by_one(invert: int) -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        ctx.set(part.barrier_pin, invert)
        await host.write("BARRIER_FILTER", FILTER_CYCLES | invert << 31)
        await host.tick(3 * FILTER_CYCLES)
        while await host.read("BARRIER_NEXT"):  # an inverted pin looks interrupted until that is known
            await host.write("BARRIER_NEXT", 0)
        first = await host.read("BARRIER_COUNT")
        assert first <= invert
        began = [await host.interrupt(level=1 - invert) for _ in range(3)]
        assert await host.read("BARRIER_COUNT") == first + 3
        for number in range(3):
            assert await host.read("BARRIER_NEXT") == 3 - number
            assert 0 <= await host.read("BARRIER_LOW") - began[number] <= PIN_CYCLES
            assert await host.read("BARRIER_HIGH") == 0
            assert await host.read("BARRIER_SEQUENCE") == first + number
            await host.write("BARRIER_NEXT", 0)
        assert await host.read("BARRIER_NEXT") == 0

    simulate(part, bench)


def test_a_lost_interruption_raises_a_flag_that_stays_until_it_is_cleared() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        await host.write("BARRIER_FILTER", FILTER_CYCLES)
        for _ in range(16):
            await host.interrupt()
        assert await host.read("BARRIER_LOST") == 0
        await host.interrupt()
        assert await host.read("BARRIER_LOST") == 1
        assert await host.read("BARRIER_COUNT") == 17 | 1 << 16
        await host.write("BARRIER_LOST", 0)
        assert await host.read("BARRIER_LOST") == 1
        await host.write("BARRIER_LOST", 1)
        assert await host.read("BARRIER_LOST") == 0

    simulate(part, bench)


def test_windows_are_queued_and_refusals_explained() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        await host.window(100, 5)  # no limit has been set
        await host.write("GATE_LIMIT", 10)
        await host.window(100, 5)
        await host.window(3, 5)
        await host.tick(3)
        assert await host.read("GATE_STATUS") == 1 | 2 << 16
        assert await host.read("GATE_REFUSED") == REFUSED_LONG | REFUSED_PAST | 2
        await host.write("GATE_REFUSED", REFUSED_LONG)
        assert await host.read("GATE_REFUSED") == REFUSED_PAST | 2
        while ctx.get(part.time) < 103:
            assert ctx.get(part.gate_pin) == (ctx.get(part.time) > 100)
            await host.tick()
        assert await host.read("GATE_STATUS") & 0xFFFF == 1 << 8
        await host.write("GATE_SHUT", 0)
        assert not ctx.get(part.gate_pin)

    simulate(part, bench)


async def set_up_positions(host: Host) -> None:
    await host.write("GATE_LIMIT", 1000)
    await host.write("ENCODER_SILENCE", 500)
    await host.write("ENCODER_MODE", ENCODER_QUADRATURE | BY_POSITION)
    await host.write("ENCODER_FAULT", 15)


def test_time_and_position_are_of_one_moment() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        await set_up_positions(host)
        await host.move_belt(12)
        await host.read("TIME_LOW")
        await host.move_belt(8)
        assert await host.read("POSITION_LOW") == 12
        assert await host.read("POSITION_HIGH") == 0
        await host.read("TIME_LOW")
        assert await host.read("POSITION_LOW") == 20

    simulate(part, bench)


def test_the_gate_opens_at_positions_of_the_belt_and_shuts_when_it_stands() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        await host.window(20, 8)
        await set_up_positions(host)
        await host.window(20, 8)
        await host.move_belt(19)
        assert not ctx.get(part.gate_pin)
        await host.move_belt(4)
        assert ctx.get(part.gate_pin)
        await host.tick(520)
        assert not ctx.get(part.gate_pin)
        assert await host.read("ENCODER_FAULT") == MOTION_SILENT
        await host.write("ENCODER_FAULT", MOTION_SILENT)
        assert await host.read("ENCODER_FAULT") == MOTION_SILENT, "it is silent still"
        await host.write("GATE_REFUSED", 31)
        await host.window(30, 8)
        assert await host.read("GATE_REFUSED") & REFUSED_MOTION

    simulate(part, bench)


@pytest.mark.parametrize("name", ["GATE_LIMIT", "ENCODER_MODE"])
def test_a_new_limit_or_mode_shuts_the_gate(name: str) -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        await host.write("GATE_LIMIT", 100)
        await host.window(40, 90)
        await host.tick(40)
        assert ctx.get(part.gate_pin)
        await host.write(name, 9)
        assert not ctx.get(part.gate_pin)
        await host.tick(100)
        assert not ctx.get(part.gate_pin)

    simulate(part, bench)


def test_both_barriers_are_stamped_with_the_position() -> None:
    part = LineIO()

    async def bench(ctx: Any) -> None:
        host = Host(ctx, part)
        await host.write("PASSAGE_FILTER", FILTER_CYCLES)
        await host.write("BARRIER_FILTER", FILTER_CYCLES)
        await set_up_positions(host)
        await host.move_belt(4)
        began = await host.interrupt()
        await host.move_belt(8)
        for pin, name in ((part.passage_pin, "PASSAGE"), (None, "BARRIER")):
            if pin is not None:
                ctx.set(pin, 1)
                began_second = int(ctx.get(part.time))
                await host.tick(3 * FILTER_CYCLES)
                assert await host.read("BUTTONS") == 1 << 5
            assert await host.read(f"{name}_NEXT") == 1
            stamp = await host.read(f"{name}_LOW")
            assert 0 <= stamp - (began_second if pin is not None else began) <= PIN_CYCLES
            assert await host.read(f"{name}_POSITION_LOW") == (12 if pin is not None else 4)
            assert await host.read(f"{name}_SEQUENCE") == 0
            await host.write(f"{name}_NEXT", 0)
            assert await host.read(f"{name}_NEXT") == 0

    simulate(part, bench)


def test_the_document_has_the_table() -> None:
    assert timer_table() in DOCUMENT.read_text(encoding="utf-8")
