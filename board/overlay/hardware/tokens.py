"""Instructions from the queues to the units, each when its tokens are there; the counters of the tokens."""

from __future__ import annotations

from amaranth.hdl import Module, Signal

from board.overlay.hardware.component import Elaboratable, Stream
from board.overlay.hardware.decode import split_fields
from board.overlay.isa import INSTRUCTION_BYTES, Instruction, Unit

TOKEN_BITS = 6


class Tokens(Elaboratable):
    """`queued[u]` in, `issued[u]` out; a unit raises `finished[u]` for a cycle before it takes its next instruction."""

    def __init__(self) -> None:
        bits = 8 * INSTRUCTION_BYTES
        self.queued = [Stream(bits, f"queued_{unit.name.lower()}") for unit in Unit]
        self.issued = [Stream(bits, f"issued_{unit.name.lower()}") for unit in Unit]
        self.finished = [Signal(name=f"finished_{unit.name.lower()}") for unit in Unit]
        self.overflow = Signal()  # a counter would leave its range: stays 1

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        pairs = [(giver, taker) for giver in Unit for taker in Unit if giver != taker]
        counts = {(g, t): Signal(TOKEN_BITS, name=f"tokens_{g.name}_{t.name}".lower()) for g, t in pairs}
        # count != 0, from a register: a unit is waiting for it
        some = {(g, t): Signal(name=f"some_{g.name}_{t.name}".lower()) for g, t in pairs}
        headers = [split_fields(stream.payload, Instruction) for stream in self.queued]
        promised = [Signal(len(Unit), name=f"promised_{unit.name.lower()}") for unit in Unit]
        for unit in Unit:
            queued, issued = self.queued[unit], self.issued[unit]
            allowed = Signal(name=f"allowed_{unit.name.lower()}")
            missing = [headers[unit].wait[g] & ~some[g, unit] for g in Unit if g != unit]
            m.d.comb += [
                allowed.eq(~(missing[0] | missing[1])),
                issued.valid.eq(queued.valid & allowed),
                issued.payload.eq(queued.payload),
                queued.ready.eq(issued.ready & allowed),
            ]
            with m.If(issued.valid & issued.ready):
                m.d.sync += promised[unit].eq(headers[unit].signal)
        for (giver, taker), count in counts.items():
            issued = self.issued[taker]
            gives = self.finished[giver] & promised[giver][taker]
            takes = issued.valid & issued.ready & headers[taker].wait[giver]
            with m.If(gives & ~takes):
                m.d.sync += [count.eq(count + 1), some[giver, taker].eq(1)]
            with m.Elif(takes & ~gives):
                m.d.sync += [count.eq(count - 1), some[giver, taker].eq(count != 1)]
            with m.If(gives & ~takes & count.all()):
                m.d.sync += self.overflow.eq(1)
        return m
