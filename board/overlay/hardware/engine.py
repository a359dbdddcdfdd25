"""The engine: fetch, the three units, the memories and the memory port, run from `start` to `done` or a fault.

Whatever ends a run, a finished program, a fault or a reset, ends it in the same way: no new burst is asked for, those
under way are finished, and then everything but the memories' contents is as after power-up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal

from board.overlay.errors import Fault
from board.overlay.hardware.activation import ActivationMemory
from board.overlay.hardware.component import Elaboratable, connect, delayed
from board.overlay.hardware.compute import ComputeUnit
from board.overlay.hardware.fetch import Fetch
from board.overlay.hardware.load import LoadUnit
from board.overlay.hardware.reader import Reader
from board.overlay.hardware.segments import SegmentTable, Translator
from board.overlay.hardware.store import StoreUnit
from board.overlay.hardware.tokens import Tokens
from board.overlay.hardware.weights import WeightMemory
from board.overlay.hardware.writer import Writer
from board.overlay.isa import Unit
from board.overlay.registers import COUNTERS

FETCH_ROOM, LOAD_ROOM = 32, 128


class Engine(Elaboratable):
    def __init__(self) -> None:
        self.reader = Reader((FETCH_ROOM, LOAD_ROOM))
        self.writer = Writer()
        self.segments = SegmentTable()
        self.start = Signal()
        self.reset = Signal()
        self.program = Signal(29)
        self.instructions = Signal(20)
        self.watchdog = Signal(32)
        self.busy = Signal()
        self.done = Signal()  # for one cycle, at the end of a run without fault
        self.failed = Signal()  # the same, with a fault
        self.fault = Signal(Fault)  # of this run, the first
        self.fault_count = Signal(20)  # instructions dispatched when it happened
        self.counters = {name: Signal(32, name=name.lower()) for name in COUNTERS}

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        clear, stop = Signal(), Signal()
        fresh = ResetInserter(clear)
        fetch, tokens, load, store = Fetch(), Tokens(), LoadUnit(), StoreUnit()
        activations, weights = ActivationMemory(), WeightMemory()
        compute = ComputeUnit(activations, weights)
        translators = [Translator(self.segments) for _ in range(3)]
        m.submodules.activations, m.submodules.weights = activations, weights
        m.submodules.fetch, m.submodules.tokens = fresh(fetch), fresh(tokens)
        m.submodules.load, m.submodules.compute, m.submodules.store = fresh(load), fresh(compute), fresh(store)
        m.submodules.reader, m.submodules.writer = fresh(self.reader), fresh(self.writer)
        for name, translator in zip(("fetch", "load", "store"), translators, strict=True):
            m.submodules[f"translate_{name}"] = fresh(translator)

        units: tuple[LoadUnit | ComputeUnit | StoreUnit, ...] = (load, compute, store)
        for unit, part in zip(Unit, units, strict=True):
            connect(m, fetch.queues[unit], tokens.queued[unit])
            connect(m, tokens.issued[unit], part.instruction)
            m.d.comb += tokens.finished[unit].eq(part.finished)
        self._connect_port(m, (fetch, load, store), translators)
        _connect_memories(m, load, store, activations, weights)
        m.d.comb += [
            self.reader.stop.eq(stop),
            self.writer.stop.eq(stop),
            store.written.eq(self.writer.idle & translators[2].access.ready),
            fetch.program.eq(self.program),
            fetch.instructions.eq(self.instructions),
        ]

        moved = Signal()
        m.d.sync += moved.eq(self.reader.beat | self.writer.beat | compute.stepped | load.moved | fetch.moved)
        outside = translators[0].fault | translators[1].fault | translators[2].fault
        quiet = Cat(unit.idle for unit in units).all() & fetch.empty
        fault = self._find_fault(m, fetch, tokens, outside, moved)
        events = Cat(compute.stepped, compute.blocked, compute.idle, self.reader.beat, self.writer.beat)
        counted = (1, *delayed(m, events, 1))
        self._run(m, fault, _Run(stop, clear, fetch, quiet, counted))
        return m

    def _run(self, m: Module, fault: Signal, run: _Run) -> None:
        good = Signal()
        m.d.sync += run.clear.eq(0)
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.comb += run.fetch.start.eq(1)
                m.d.sync += [self.fault.eq(Fault.NONE), *(count.eq(0) for count in self.counters.values())]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.busy.eq(1)
                for count, event in zip(self.counters.values(), run.counted, strict=True):
                    with m.If(event):
                        m.d.sync += count.eq(count + 1)
                with m.If(self.reset):
                    m.next = "STOP"
                with m.Elif(fault != Fault.NONE):
                    m.d.sync += [self.fault.eq(fault), self.fault_count.eq(run.fetch.count)]
                    m.next = "STOP"
                with m.Elif(run.fetch.ended & run.quiet):
                    m.d.sync += good.eq(1)
                    m.next = "STOP"
            with m.State("STOP"):
                m.d.comb += [self.busy.eq(1), run.stop.eq(1)]
                with m.If(self.reader.idle & self.writer.quiet):
                    m.d.sync += run.clear.eq(1)  # from a register: it goes everywhere
                    m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += [self.busy.eq(1), run.stop.eq(1), self.done.eq(good)]
                m.d.comb += self.failed.eq(self.fault != Fault.NONE)
                m.d.sync += good.eq(0)
                m.next = "IDLE"

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
        idle_cycles, slept = Signal(32), Signal()
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


class _Run(NamedTuple):
    """What a run needs to see and to stop."""

    stop: Signal
    clear: Signal
    fetch: Fetch
    quiet: Any  # no unit works and no instruction waits
    counted: tuple[Any, ...]  # the events of COUNTERS


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
