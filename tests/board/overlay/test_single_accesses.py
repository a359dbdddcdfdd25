"""Bursts of the processing system reach every register that they name, and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from amaranth.hdl import Module

from board.overlay.hardware.axi_lite import READ_SIGNALS, WRITE_SIGNALS, AxiLite
from board.overlay.hardware.component import Elaboratable
from board.overlay.hardware.single_accesses import FIXED, WRAPS, SingleAccesses
from tests.board.overlay.clocked import simulate, tick_until

INCREMENTS = 1
RATE = 0.6  # of cycles in which a side is ready
MANY = 40
PATIENCE = 50


async def wait_for(ctx: Any, signal: Any) -> None:
    for _ in range(PATIENCE):
        if ctx.get(signal):
            return
        await ctx.tick()
    raise AssertionError(f"{signal.name} stayed 0 for {PATIENCE} cycles")


class Burst(NamedTuple):
    owner: int
    address: int
    beats: int
    kind: int = INCREMENTS
    size: int = 2  # of a beat, 1 << size bytes

    def places(self) -> list[int]:
        """As the specification has it: AXI3, section 4.4."""
        step = 1 << self.size
        if self.kind == FIXED:
            return [self.address] * self.beats
        first = self.address // step * step
        places = [self.address, *(first + step * beat for beat in range(1, self.beats))]
        if self.kind == WRAPS:
            whole = step * self.beats
            low = self.address // whole * whole
            places = [low + (place - low) % whole for place in places]
        return places


class Bridge(Elaboratable):
    """Before a slave whose registers read as their address."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken
        self.bridge, self.slave = SingleAccesses(), AxiLite()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.bridge, m.submodules.slave = self.bridge, self.slave
        there, here = self.bridge.slave, self.slave
        for name in (*READ_SIGNALS, *WRITE_SIGNALS):
            given_by_slave = name.endswith(("resp", "rdata")) or name in {"arready", "awready", "wready"}
            given_by_slave |= name in {"rvalid", "bvalid"}
            to, source = (there, here) if given_by_slave else (here, there)
            value = 2 if self.broken and name.endswith("resp") else getattr(source, name)
            m.d.comb += getattr(to, name).eq(value)
        m.d.comb += here.read_data.eq(here.read_address)
        return m


class Master:
    def __init__(self, part: Bridge) -> None:
        self.bridge, self.slave = part.bridge, part.slave
        self.written: list[tuple[int, int]] = []
        self.rng = np.random.default_rng(3)

    async def ask(self, ctx: Any, way: str, burst: Burst) -> None:
        asked = self.bridge.reads if way == "ar" else self.bridge.writes
        signals = (asked.id, asked.address, asked.length, asked.size, asked.burst)
        for signal, value in zip(
            signals, (burst.owner, burst.address, burst.beats - 1, burst.size, burst.kind), strict=True
        ):
            ctx.set(signal, value)
        valid, ready = (getattr(self.bridge, f"{way}{name}") for name in ("valid", "ready"))
        ctx.set(valid, 1)
        await tick_until(ctx, ready, PATIENCE)
        ctx.set(valid, 0)
        for signal in signals:
            ctx.set(signal, int(self.rng.integers(1 << len(signal))))  # nobody holds them any longer

    async def pause(self, ctx: Any) -> None:
        while self.rng.random() > RATE:
            await ctx.tick()

    async def read(self, ctx: Any, burst: Burst) -> list[int]:
        bridge, values = self.bridge, []
        await self.ask(ctx, "ar", burst)
        for beat in range(burst.beats):
            await self.pause(ctx)
            ctx.set(bridge.rready, 1)
            await wait_for(ctx, bridge.rvalid)
            values.append(ctx.get(bridge.rdata))
            assert (ctx.get(bridge.rlast), ctx.get(bridge.reads.owner)) == (beat == burst.beats - 1, burst.owner)
            await ctx.tick()
            ctx.set(bridge.rready, 0)
        return values

    async def write(self, ctx: Any, burst: Burst, values: list[int]) -> int:
        """Its answer."""
        bridge = self.bridge
        await self.ask(ctx, "aw", burst)
        for value in values:
            await self.pause(ctx)
            ctx.set(bridge.wdata, value)
            ctx.set(bridge.wstrb, 15)
            ctx.set(bridge.wvalid, 1)
            await tick_until(ctx, bridge.wready, PATIENCE)
            ctx.set(bridge.wvalid, 0)
        await self.pause(ctx)
        ctx.set(bridge.bready, 1)
        await wait_for(ctx, bridge.bvalid)
        assert ctx.get(bridge.writes.owner) == burst.owner
        answer = int(ctx.get(bridge.bresp))
        await ctx.tick()
        ctx.set(bridge.bready, 0)
        return answer

    async def listen(self, ctx: Any) -> None:
        async for _, _, writes, address, value in ctx.tick().sample(
            self.slave.write, self.slave.write_address, self.slave.write_data
        ):
            if writes:
                self.written.append((address, value))


def any_bursts() -> list[Burst]:
    rng = np.random.default_rng(7)
    bursts = [
        Burst(1, 0x10, 1),
        Burst(2, 0xFF8, 2),
        Burst(3, 0x3C, 16),
        Burst(4, 0x28, 8, WRAPS),
        Burst(5, 4, 5, FIXED),
    ]
    for _ in range(MANY):
        kind = int(rng.integers(3))
        beats = int(rng.choice([2, 4, 8, 16])) if kind == WRAPS else int(rng.integers(1, 17))
        bursts.append(Burst(int(rng.integers(1 << 12)), 4 * int(rng.integers(900)), beats, kind))
    return bursts


def drive(broken: bool, use: Callable[[Any, Master], Any]) -> Master:
    part = Bridge(broken)
    master = Master(part)

    async def bench(ctx: Any) -> None:
        await use(ctx, master)

    simulate(part, bench, master.listen)
    return master


def test_a_burst_reads_each_register_in_turn() -> None:
    async def use(ctx: Any, master: Master) -> None:
        for burst in any_bursts():
            assert await master.read(ctx, burst) == burst.places(), burst

    drive(False, use)


def test_a_burst_writes_each_register_in_turn() -> None:
    wanted: list[tuple[int, int]] = []

    async def use(ctx: Any, master: Master) -> None:
        for number, burst in enumerate(any_bursts()):
            values = [1000 * number + beat for beat in range(burst.beats)]
            wanted.extend(zip(burst.places(), values, strict=True))
            assert await master.write(ctx, burst, values) == 0

    assert drive(False, use).written == wanted


def test_a_narrow_beat_is_taken_out_of_its_word() -> None:
    async def use(ctx: Any, master: Master) -> None:
        narrow = Burst(9, 0x21, 7, size=0)
        assert await master.read(ctx, narrow) == [place // 4 * 4 for place in narrow.places()]

    drive(False, use)


@pytest.mark.parametrize("beats", [1, 3])
def test_a_fault_of_the_slave_is_passed_on(beats: int) -> None:
    async def use(ctx: Any, master: Master) -> None:
        assert await master.write(ctx, Burst(1, 0, beats), [0] * beats) == 2
        await master.ask(ctx, "ar", Burst(1, 0, 1))
        await tick_until(ctx, master.bridge.rvalid, PATIENCE)
        assert ctx.get(master.bridge.rresp) == 2

    drive(True, use)
