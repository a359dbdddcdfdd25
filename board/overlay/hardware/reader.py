"""AXI4 reads: each client asks for beats in a row, the reader makes bursts and hands every client its own beats.

A burst is asked for only when its client has room for all of it, so that what arrives is never held up and one client
cannot block another. Between the port and the logic stand registers in both directions: what the processing system
answers moves nothing but them. Bursts have at most 16 beats and do not cross a multiple of 128 bytes, which suits AXI3
and the 4 KiB rule.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.data import StructLayout
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered

from board.overlay.hardware.component import Elaboratable, Skid, Stream, connect, data, kept
from board.overlay.hardware.fifo import Fifo

BURST_BEATS = 16
MOST_IN_LUTS = 64  # words of a queue
ADDRESS_BITS = 32
BEATS_BITS = 22  # of one request: 1024 pixels of 128 words of 2 beats, and one more bit
REQUEST = StructLayout({"address": 29, "beats": BEATS_BITS})  # bus address in beats; at least 1 beat


class ReadPort:
    """The read half of an AXI4 port."""

    def __init__(self) -> None:
        self.araddr = data(ADDRESS_BITS)
        self.arlen = data(8)
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
        self.address = data(29)
        self.beats = data(5)
        self.taken = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        rest = data(BEATS_BITS)
        room = BURST_BEATS - self.address[:4]  # to the next multiple of 128 bytes
        more = Signal()
        (addressed,) = kept(1, "addressed")  # the same as `active`, for the address
        m.d.comb += [self.request.ready.eq(~self.active), more.eq(self.active)]
        m.d.sync += [self.active.eq(more), addressed.eq(more)]
        with m.If(~self.active):
            m.d.sync += rest.eq(self.request.payload.beats)
            m.d.comb += more.eq(self.request.valid)
        with m.Elif(self.taken):
            m.d.sync += [self.burst.eq(0), rest.eq(rest - self.beats)]
        with m.Elif(~self.burst):
            m.d.sync += [self.burst.eq(rest != 0), self.beats.eq(Mux(rest < room, rest, room))]
            m.d.comb += more.eq(rest != 0)
        with m.If(~addressed):
            m.d.sync += self.address.eq(self.request.payload.address)
        with m.Elif(self.taken):
            m.d.sync += self.address.eq(self.address + self.beats)
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
        holding, may_ask = Signal(), Signal()
        arrived = _Beat(Signal(), data(), data(64))  # a cycle ago
        m.d.sync += [arrived.valid.eq(port.rvalid), arrived.last.eq(port.rlast), arrived.data.eq(port.rdata)]

        offers, taken = Signal(len(self.rooms)), Signal(len(self.rooms))
        splitters = [
            self._client(m, i, (offers[i], taken[i]), arrived, owners.r_data == i) for i in range(len(self.rooms))
        ]
        # a burst leaves its splitter when it is offered to the port, and is offered until it is accepted
        m.d.comb += may_ask.eq(~holding & ~self.stop & owners.w_rdy)
        choice, earlier = Signal(owner_bits), Const(0, 1)
        for i in range(len(splitters)):
            m.d.comb += taken[i].eq(may_ask & offers[i] & ~earlier)
            with m.If(taken[i]):
                m.d.comb += choice.eq(i)
            earlier = earlier | offers[i]
        with m.If(~holding):
            m.d.sync += holding.eq(taken.any())
            m.d.sync += self._offer(port, splitters, offers)
        with m.Elif(port.arready):
            m.d.sync += holding.eq(0)
        m.d.comb += [port.arvalid.eq(holding), owners.w_en.eq(taken.any()), owners.w_data.eq(choice)]
        m.d.sync += self.failed.eq(port.rvalid & (port.rresp != 0))
        m.d.comb += [
            port.rready.eq(1),  # there is room for what was asked for
            owners.r_en.eq(arrived.valid & arrived.last),
            self.beat.eq(arrived.valid),
            self.idle.eq(~holding & ~owners.r_rdy),
        ]
        return m

    def _offer(self, port: ReadPort, splitters: list[BurstSplitter], offers: Any) -> list[Any]:
        """The burst of the first client that has one."""
        address, beats = splitters[-1].address, splitters[-1].beats
        for i in reversed(range(len(splitters) - 1)):
            address = Mux(offers[i], splitters[i].address, address)
            beats = Mux(offers[i], splitters[i].beats, beats)
        return [port.araddr.eq(Cat(Const(0, 3), address)), port.arlen.eq(beats - 1)]

    def _client(self, m: Module, i: int, ask: tuple[Any, Any], arrived: _Beat, owned: Any) -> BurstSplitter:
        room, (offer, taken) = self.rooms[i], ask
        m.submodules[f"splitter{i}"] = splitter = BurstSplitter()
        # a large one goes into a block RAM
        buffer: Any = Fifo(64, room) if room <= MOST_IN_LUTS else SyncFIFOBuffered(width=64, depth=room)
        m.submodules[f"buffer{i}"] = buffer
        m.submodules[f"skid{i}"] = skid = Skid(64)
        free, leaves = Signal(range(room + 1), init=room), Signal()  # beats neither in the buffer nor asked for
        m.d.sync += [leaves.eq(skid.source.valid & skid.source.ready)]
        m.d.sync += free.eq(free - Mux(taken, splitter.beats, 0) + leaves)
        m.d.sync += offer.eq(splitter.burst & ~taken & (splitter.beats <= free))
        m.d.comb += [
            splitter.request.valid.eq(self.requests[i].valid),
            splitter.request.payload.eq(self.requests[i].payload),
            self.requests[i].ready.eq(splitter.request.ready),
            splitter.taken.eq(taken),
            buffer.w_data.eq(arrived.data),
            buffer.w_en.eq(arrived.valid & owned),  # nothing comes that has no owner
            skid.source.valid.eq(buffer.r_rdy),
            skid.source.payload.eq(buffer.r_data),
            buffer.r_en.eq(skid.source.ready),
        ]
        connect(m, skid.sink, self.beats[i])
        return splitter


class _Beat(NamedTuple):
    valid: Any
    last: Any
    data: Any
