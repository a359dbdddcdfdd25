"""The engine: fetch, the three units, the memories and the memory port, run from `start` to `done` or a fault."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal

from board.overlay.errors import Fault
from board.overlay.hardware.activation import ActivationMemory
from board.overlay.hardware.component import Elaboratable, connect, copied, data, delayed
from board.overlay.hardware.compute import ComputeUnit
from board.overlay.hardware.control import Control
from board.overlay.hardware.fetch import Fetch
from board.overlay.hardware.load import LoadUnit
from board.overlay.hardware.reader import Reader
from board.overlay.hardware.segments import SegmentTable, Translator
from board.overlay.hardware.store import StoreUnit
from board.overlay.hardware.tokens import Tokens
from board.overlay.hardware.weights import WeightMemory
from board.overlay.hardware.writer import Writer
from board.overlay.isa import Unit

FETCH_ROOM, LOAD_ROOM = 32, 128


class Engine(Elaboratable):
    def __init__(self) -> None:
        self.reader = Reader((FETCH_ROOM, LOAD_ROOM))
        self.writer = Writer()
        self.segments = SegmentTable()
        self.control = control = Control()
        self.start, self.reset, self.busy = control.start, control.reset, control.busy
        self.program = Signal(29)
        self.instructions = Signal(20)
        self.watchdog = Signal(32)
        self.done = control.done  # for one cycle, at the end of a run without fault
        self.failed = control.failed  # the same, with a fault
        self.fault = control.fault  # of this run, the first
        self.fault_count = control.fault_count  # instructions dispatched when it happened
        self.counters = control.counters
        self.rst = Signal()

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        fetch, tokens, load, store = Fetch(), Tokens(), LoadUnit(), StoreUnit()
        activations, weights = ActivationMemory(), WeightMemory()
        compute = ComputeUnit(activations, weights)
        translators = [Translator(self.segments) for _ in range(3)]
        m.submodules.activations, m.submodules.weights = activations, weights
        m.submodules.control = ResetInserter(self.rst)(self.control)
        cleared = {"fetch": fetch, "tokens": tokens, "load": load, "compute": compute, "store": store}
        cleared |= {"reader": self.reader, "writer": self.writer}
        cleared |= dict(zip(("translate_fetch", "translate_load", "translate_store"), translators, strict=True))
        for (name, part), clear in zip(cleared.items(), copied(m, self.control.clear, len(cleared)), strict=True):
            m.submodules[name] = ResetInserter(clear)(part)

        units: tuple[LoadUnit | ComputeUnit | StoreUnit, ...] = (load, compute, store)
        for unit, part in zip(Unit, units, strict=True):
            connect(m, fetch.queues[unit], tokens.queued[unit])
            connect(m, tokens.issued[unit], part.instruction)
            m.d.comb += tokens.finished[unit].eq(part.finished)
        self._connect_port(m, (fetch, load, store), translators)
        _connect_memories(m, load, store, activations, weights)
        m.d.comb += [
            self.reader.stop.eq(self.control.stop),
            self.writer.stop.eq(self.control.stop),
            store.written.eq(self.writer.idle & translators[2].access.ready),
            fetch.start.eq(self.control.begin),
            fetch.program.eq(self.program),
            fetch.instructions.eq(self.instructions),
        ]

        moved = data()
        m.d.sync += moved.eq(self.reader.beat | self.writer.beat | compute.stepped | load.moved | fetch.moved)
        outside = translators[0].fault | translators[1].fault | translators[2].fault
        events = Cat(compute.stepped, compute.blocked, compute.idle, self.reader.beat, self.writer.beat)
        m.d.comb += [
            self.control.ended.eq(fetch.ended & Cat(unit.idle for unit in units).all() & fetch.empty),
            self.control.at_rest.eq(self.reader.idle & self.writer.quiet),
            self.control.found.eq(self._find_fault(m, fetch, tokens, outside, moved)),
            self.control.dispatched.eq(fetch.count),
            self.control.events.eq(delayed(m, events, 1)),
        ]
        return m

    def _connect_port(self, m: Module, parts: tuple[Fetch, LoadUnit, StoreUnit], translators: list[Translator]) -> None:
        fetch, load, store = parts
        accesses = (fetch.access, load.rows.access, store.rows.access)
        requests = (*self.reader.requests, self.writer.request)
        for access, translator, request in zip(accesses, translators, requests, strict=True):
            connect(m, access, translator.access)
            connect(m, translator.request, request)
        connect(m, self.reader.beats[0], fetch.beats)
        connect(m, self.reader.beats[1], load.beats)
        connect(m, store.beats, self.writer.beats)

    def _find_fault(self, m: Module, fetch: Fetch, tokens: Tokens, outside: Signal, moved: Signal) -> Signal:
        idle_cycles, slept = data(32), data()
        with m.If(moved | ~self.busy):
            m.d.sync += idle_cycles.eq(0)
        with m.Else():
            m.d.sync += idle_cycles.eq(idle_cycles + 1)
        m.d.sync += slept.eq(self.busy & (self.watchdog != 0) & (idle_cycles == self.watchdog))
        fault = Signal(Fault)
        for event, code in (  # the later the more it matters, when several come at once
            (slept, Fault.WATCHDOG),
            (fetch.no_end, Fault.PROGRAM_END),
            (fetch.bad_opcode, Fault.OPCODE),
            (tokens.overflow, Fault.TOKENS),
            (outside, Fault.SEGMENT),
            (self.writer.failed, Fault.WRITE),
            (self.reader.failed, Fault.READ),
        ):
            with m.If(event):
                m.d.comb += fault.eq(code)
        return fault


def _connect_memories(
    m: Module, load: LoadUnit, store: StoreUnit, activations: ActivationMemory, weights: WeightMemory
) -> None:
    """A load is never held up; a store reads the activations when no load writes them."""
    m.d.comb += [
        store.read_grant.eq(~load.write),
        store.read_data.eq(activations.port_data),
        activations.port.eq(load.write | store.read),
        activations.port_write.eq(load.write),
        activations.port_address.eq(Mux(load.write, load.write_address, store.read_address)),
        activations.port_write_data.eq(load.write_data),
        weights.write.eq(load.weight_write),
        weights.write_word.eq(load.weight_word),
        weights.write_row.eq(load.weight_row),
        weights.write_data.eq(load.weight_data),
    ]
