"""AXI4 reads: each client asks for beats in a row, the reader makes bursts and hands every client its own beats.

A burst is asked for only when its client has room for all of it, so that what arrives is never held up and one client
cannot block another. Bursts have at most 16 beats and do not cross a multiple of 128 bytes, which suits AXI3 and the
4 KiB rule.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.data import StructLayout
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered

from board.overlay.hardware.component import Elaboratable, Stream

BURST_BEATS = 16
ADDRESS_BITS = 32
BEATS_BITS = 22  # of one request: 1024 pixels of 128 words of 2 beats, and one more bit
REQUEST = StructLayout({"address": 29, "beats": BEATS_BITS})  # bus address in beats; at least 1 beat


class ReadPort:
    """The read half of an AXI4 port."""

    def __init__(self) -> None:
        self.araddr = Signal(ADDRESS_BITS)
        self.arlen = Signal(8)
        self.arvalid = Signal()
        self.arready = Signal()
        self.rdata = Signal(64)
        self.rresp = Signal(2)
        self.rlast = Signal()
        self.rvalid = Signal()
        self.rready = Signal()


class BurstSplitter(Elaboratable):
    """Turns requests into bursts that are `taken` one by one, at most every second cycle."""

    def __init__(self) -> None:
        self.request = Stream(REQUEST, "request")
        self.active = Signal()  # from a request to the end of its last burst
        self.burst = Signal()  # address and beats are those of a burst
        self.address = Signal(29)
        self.beats = Signal(5)
        self.taken = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        rest = Signal(BEATS_BITS)
        room = BURST_BEATS - self.address[:4]  # to the next multiple of 128 bytes
        m.d.comb += self.request.ready.eq(~self.active)
        with m.If(~self.active):
            m.d.sync += [self.address.eq(self.request.payload.address), rest.eq(self.request.payload.beats)]
            m.d.sync += self.active.eq(self.request.valid)
        with m.Elif(self.taken):
            m.d.sync += [self.burst.eq(0), self.address.eq(self.address + self.beats), rest.eq(rest - self.beats)]
        with m.Elif(~self.burst):
            m.d.sync += [self.burst.eq(rest != 0), self.active.eq(rest != 0)]
            m.d.sync += self.beats.eq(Mux(rest < room, rest, room))
        return m


class Reader(Elaboratable):
    """`requests[i]` in, `beats[i]` out. `stop` keeps new bursts back; `idle` when none is under way."""

    BURSTS = 4  # under way at once

    def __init__(self, rooms: tuple[int, ...]) -> None:
        self.rooms = rooms  # beats that each client's buffer holds
        self.port = ReadPort()
        self.requests = [Stream(REQUEST, f"read_request{i}") for i in range(len(rooms))]
        self.beats = [Stream(64, f"read_beats{i}") for i in range(len(rooms))]
        self.stop = Signal()
        self.idle = Signal()
        self.failed = Signal()
        self.beat = Signal()  # a beat arrives

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        port = self.port
        owner_bits = range(max(2, len(self.rooms)))
        m.submodules.owners = owners = SyncFIFO(width=len(Signal(owner_bits)), depth=self.BURSTS)
        arrives = port.rvalid & port.rready
        accepted = port.arvalid & port.arready
        chosen, holding = Signal(owner_bits), Signal()

        offers = Signal(len(self.rooms))
        splitters = [self._client(m, i, offers, owners.r_data == i) for i in range(len(self.rooms))]
        # the choice holds until the burst is accepted: an address that was offered must not change
        choice = Signal(owner_bits)
        for i in reversed(range(len(self.rooms))):
            with m.If(offers[i]):
                m.d.comb += choice.eq(i)
        with m.If(~holding), m.If(offers.any() & ~self.stop & owners.w_rdy):
            m.d.sync += [holding.eq(1), chosen.eq(choice)]
        with m.Elif(accepted):
            m.d.sync += holding.eq(0)
        m.d.comb += [port.arvalid.eq(holding), owners.w_en.eq(accepted), owners.w_data.eq(chosen)]
        for i, splitter in enumerate(splitters):
            with m.If(chosen == i):
                m.d.comb += [
                    port.araddr.eq(Cat(Const(0, 3), splitter.address)),
                    port.arlen.eq(splitter.beats - 1),
                    splitter.taken.eq(accepted),
                ]
        m.d.sync += self.failed.eq(arrives & (port.rresp != 0))
        m.d.comb += [
            port.rready.eq(owners.r_rdy),
            owners.r_en.eq(arrives & port.rlast),
            self.beat.eq(arrives),
            self.idle.eq(~holding & ~owners.r_rdy),
        ]
        return m

    def _client(self, m: Module, i: int, offers: Any, owned: Any) -> BurstSplitter:
        room = self.rooms[i]
        m.submodules[f"splitter{i}"] = splitter = BurstSplitter()
        m.submodules[f"buffer{i}"] = buffer = SyncFIFOBuffered(width=64, depth=room)
        free = Signal(range(room + 1), init=room)  # beats neither in the buffer nor asked for
        leaves = buffer.r_en & buffer.r_rdy
        asked = Mux(splitter.taken, splitter.beats, 0)
        m.d.sync += free.eq(free - asked + leaves)
        m.d.sync += offers[i].eq(splitter.burst & ~splitter.taken & (splitter.beats <= free))
        m.d.comb += [
            splitter.request.valid.eq(self.requests[i].valid),
            splitter.request.payload.eq(self.requests[i].payload),
            self.requests[i].ready.eq(splitter.request.ready),
            buffer.w_data.eq(self.port.rdata),
            buffer.w_en.eq(self.port.rvalid & owned),  # nothing comes that has no owner
            self.beats[i].valid.eq(buffer.r_rdy),
            self.beats[i].payload.eq(buffer.r_data),
            buffer.r_en.eq(self.beats[i].ready),
        ]
        return splitter
