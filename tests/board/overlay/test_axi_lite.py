from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module

from board.overlay.hardware.axi_lite import AxiLite
from board.overlay.hardware.component import Elaboratable
from tests.board.overlay.clocked import simulate

ANSWER = 0x0101_0101


class Answering(Elaboratable):
    """A slave whose registers read as their address, four times over."""

    def __init__(self) -> None:
        self.bus = AxiLite()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.bus = self.bus
        m.d.comb += self.bus.read_data.eq(self.bus.read_address[2:10] * ANSWER)
        return m


class Host:
    """Offers each request in its own time, holds it until it is taken, and takes the answers in its own time."""

    def __init__(self, bus: AxiLite, patience: tuple[float, float, float]) -> None:
        self.bus = bus
        self.address_rate, self.data_rate, self.answer_rate = patience
        self.strobes: list[tuple[int, int]] = []
        self.answers: list[int] = []  # responses to writes
        self.values: list[int] = []  # what was read
        self.held: dict[str, Any] = {}  # answers that wait to be taken
        self.rng = np.random.default_rng(0)

    async def run(self, ctx: Any, writes: list[tuple[int, int, int]], reads: list[int], cycles: int) -> None:
        """`writes` are (address, data, strobes)."""
        bus = self.bus
        requests: tuple[Any, ...] = (
            (bus.awvalid, bus.awready, self.address_rate, (bus.awaddr,), [(address,) for address, _, _ in writes]),
            (bus.wvalid, bus.wready, self.data_rate, (bus.wdata, bus.wstrb), [write[1:] for write in writes]),
            (bus.arvalid, bus.arready, self.address_rate, (bus.araddr,), [(address,) for address in reads]),
        )
        taken = [0, 0, 0]
        for _ in range(cycles):
            moves = []
            for number, (valid, ready, rate, payload, values) in enumerate(requests):
                if not ctx.get(valid) and taken[number] < len(values) and self.rng.random() < rate:
                    ctx.set(valid, 1)
                    for signal, value in zip(payload, values[taken[number]], strict=True):
                        ctx.set(signal, value)
                moves.append(bool(ctx.get(valid) and ctx.get(ready)))
            if ctx.get(bus.write):
                self.strobes.append((ctx.get(bus.write_address), ctx.get(bus.write_data)))
            self._take(ctx, "b", self.answers, bus.bresp, min(taken[:2]))
            self._take(ctx, "r", self.values, bus.rdata, taken[2])
            await ctx.tick()
            for number, moved in enumerate(moves):
                taken[number] += moved
                if moved:
                    ctx.set(requests[number][0], 0)

    def _take(self, ctx: Any, name: str, answers: list[int], payload: Any, asked: int) -> None:
        valid, ready, answer = (getattr(self.bus, f"{name}{part}") for part in ("valid", "ready", "resp"))
        ctx.set(ready, int(self.rng.random() < self.answer_rate))
        offer = (ctx.get(valid), ctx.get(payload), ctx.get(answer))
        assert self.held.get(name, offer) == offer, "an answer changed before it was taken"
        self.held.pop(name, None)
        if not offer[0]:
            return
        assert len(answers) < asked, "an answer without its request"
        assert offer[2] == 0
        if ctx.get(ready):
            answers.append(offer[1])
        else:
            self.held[name] = offer


@pytest.mark.parametrize(
    "patience", [(1.0, 1.0, 1.0), (1.0, 0.1, 0.5), (0.1, 1.0, 0.5), (0.3, 0.3, 0.1), (1.0, 1.0, 0.2)]
)
def test_every_access_is_done_once_and_answered_once(patience: tuple[float, float, float]) -> None:
    """Address and data of a write in any order, reads beside them."""
    rng = np.random.default_rng(1)
    writes = [(int(rng.integers(1024)) * 4, int(rng.integers(1 << 32)), 15) for _ in range(20)]
    reads = [int(rng.integers(256)) * 4 for _ in range(20)]
    part = Answering()
    host = Host(part.bus, patience)

    async def bench(ctx: Any) -> None:
        await host.run(ctx, writes, reads, 600)

    simulate(part, bench)
    assert host.strobes == [(address, data) for address, data, _ in writes]
    assert host.answers == [0] * len(writes)
    assert host.values == [(address >> 2 & 255) * ANSWER for address in reads]


@pytest.mark.parametrize("strobes", range(15))
def test_a_write_of_less_than_a_register_does_nothing(strobes: int) -> None:
    part = Answering()
    host = Host(part.bus, (1.0, 1.0, 1.0))

    async def bench(ctx: Any) -> None:
        await host.run(ctx, [(4, 1, strobes), (8, 2, 15)], [], 20)

    simulate(part, bench)
    assert host.strobes == [(8, 2)]
    assert host.answers == [0, 0]
