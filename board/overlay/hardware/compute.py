"""The compute unit: takes an instruction, runs its steps through the array, writes the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed

from board.overlay.hardware.activation import ActivationMemory
from board.overlay.hardware.addresses import Addresses
from board.overlay.hardware.array import MacArray
from board.overlay.hardware.component import Elaboratable, Stream, delayed
from board.overlay.hardware.decode import split_fields
from board.overlay.hardware.requantize import Requantizer
from board.overlay.hardware.results import Results
from board.overlay.hardware.sequencer import Sequencer
from board.overlay.hardware.sums import Sums
from board.overlay.hardware.weights import WeightMemory
from board.overlay.isa import (
    CHANNELS_IN,
    CHANNELS_OUT,
    INSTRUCTION_BYTES,
    PARAMETER_BYTES,
    PIXELS,
    WEIGHT_WORDS,
    Compute,
    Mode,
)

PACK_CYCLES = 1


class ComputeUnit(Elaboratable):
    """`instruction` is taken when the unit is free; `finished` for one cycle when its last result is written."""

    def __init__(self, activations: ActivationMemory, weights: WeightMemory) -> None:
        self.activations = activations
        self.weights = weights
        self.instruction = Stream(8 * INSTRUCTION_BYTES, "compute_instruction")
        self.finished = Signal()
        self.idle = Signal(init=1)
        self.stepped = Signal()  # the array takes a step
        self.blocked = Signal()  # a step waits for a port

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        current = Signal(8 * INSTRUCTION_BYTES)
        f = split_fields(current, Compute)
        m.submodules.sequencer = sequencer = Sequencer(f)
        m.submodules.results = results = Results(f)
        start, prepare = Signal(), Signal()
        parameters = self._parameters(m, prepare)
        m.d.comb += [sequencer.start.eq(start), results.start.eq(start), self.finished.eq(results.finished)]

        countdown = Signal(range(WeightMemory.READ_CYCLES))
        m.d.comb += self.instruction.ready.eq(self.idle)
        with m.FSM():
            with m.State("IDLE"), m.If(self.instruction.valid):
                m.d.sync += self.idle.eq(0)
                m.d.sync += [current.eq(self.instruction.payload), countdown.eq(WeightMemory.READ_CYCLES - 1)]
                m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.sync += countdown.eq(countdown - 1)
                with m.If(countdown == 0):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += [prepare.eq(1), start.eq(1)]
                m.next = "RUN"
            with m.State("RUN"), m.If(results.finished):
                m.d.sync += self.idle.eq(1)
                m.next = "IDLE"

        step = self._fetch_step(m, f, sequencer)
        running = Signal()
        m.d.sync += running.eq(Mux(start, 1, running & ~results.finished))
        weight = delayed(m, step.weight, ActivationMemory.READ_CYCLES + PACK_CYCLES - WeightMemory.READ_CYCLES)
        m.d.comb += self.weights.address.eq(Mux(running, weight, f.weights))
        # a maximum is taken of products with 1
        m.d.comb += self.weights.one.eq(running & (f.mode == Mode.MAX))
        self._compute(m, f, step, parameters, results)
        return m

    def _parameters(self, m: Module, load: Any) -> tuple[list[Any], list[Any]]:
        bias = [Signal(signed(32), name=f"bias{lane}") for lane in range(CHANNELS_IN)]
        shift = [Signal(5, name=f"shift{lane}") for lane in range(CHANNELS_IN)]
        with m.If(load):
            for lane in range(CHANNELS_IN):
                entry = self.weights.data.word_select(lane, 8 * PARAMETER_BYTES)
                m.d.sync += [bias[lane].eq(entry[:32]), shift[lane].eq(entry[32:37])]
        return bias, shift

    def _fetch_step(self, m: Module, f: Any, sequencer: Sequencer) -> Any:
        """From the sequencer to the memory; from here on nothing waits any more."""
        m.submodules.addresses = addresses = Addresses()
        enable = Signal()
        m.d.comb += [
            sequencer.enable.eq(enable),
            addresses.enable.eq(enable),
            addresses.row.eq(sequencer.row),
            addresses.block.eq(sequencer.block),
            addresses.second.eq(sequencer.second),
            addresses.source_rows_last.eq(f.source_rows),
            addresses.source_cols_last.eq(f.source_cols),
            *(to.eq(value) for to, value in zip(addresses.col, sequencer.col, strict=True)),
            *(to.eq(value) for to, value in zip(addresses.base, (f.a, f.b), strict=True)),
            *(to.eq(value) for to, value in zip(addresses.row_words, (f.a_row, f.b_row), strict=True)),
            *(to.eq(value) for to, value in zip(addresses.col_words, (f.a_col, f.b_col), strict=True)),
            *(to.eq(value) for to, value in zip(addresses.double, (f.a_double, f.b_double), strict=True)),
        ]
        step = _Step(sequencer.valid, sequencer.first, sequencer.last, sequencer.weight)
        for _ in range(Addresses.CYCLES):
            step = step.register(m, enable)
        ready = _Step(
            step.valid, step.first, step.last, step.weight, address=addresses.address, outside=addresses.outside
        )
        # A step that is refused waits aside, so that the sequencer hears of it a cycle later and from a register.
        refused, aside = Signal(), ready.register(m, enable)
        step = ready.unless(m, refused, aside)
        memory = self.activations
        m.d.sync += refused.eq(step.valid & ~memory.step_grant)
        m.d.comb += [
            memory.step.eq(Cat(~outside & step.valid for outside in step.outside)),
            *(to.eq(value) for to, value in zip(memory.step_address, step.address, strict=True)),
            enable.eq(~refused),
            self.stepped.eq(step.valid & memory.step_grant),
            self.blocked.eq(step.valid & ~memory.step_grant),
        ]
        return _Step(self.stepped, step.first, step.last, step.weight, outside=step.outside)

    def _compute(self, m: Module, f: Any, step: Any, parameters: Any, results: Results) -> None:
        bias, shift = parameters
        m.submodules.array = array = MacArray()
        m.submodules.sums = sums = Sums()
        m.submodules.requantizer = requantizer = Requantizer()
        outside = [delayed(m, signal, ActivationMemory.READ_CYCLES) for signal in step.outside]
        padding = Mux(f.mode == Mode.MAX, 0x80, 0)
        for i in range(CHANNELS_IN):
            a = [Signal(signed(8), name=f"value{p}_{i}") for p in range(PIXELS)]
            for p in range(PIXELS):
                m.d.comb += a[p].eq(Mux(outside[p], padding, self.activations.step_data[p].word_select(i, 8)))
            # a₁·2¹⁶ + a₀: the upper 9 bits lose one where a₀ is negative
            upper = Signal(signed(9), name=f"upper_{i}")
            m.d.comb += upper.eq(a[1] - a[0][7])
            m.d.sync += array.a[i].eq(Cat(a[0], a[0][7].replicate(8), upper))
            for j in range(CHANNELS_OUT):
                m.d.comb += array.w[j][i].eq(self.weights.data.word_select(CHANNELS_IN * j + i, 8))
        latency = ActivationMemory.READ_CYCLES + PACK_CYCLES + MacArray.CYCLES
        m.d.comb += [
            sums.lane_mode.eq(f.mode != Mode.DENSE),
            sums.max_mode.eq(f.mode == Mode.MAX),
            sums.valid.eq(delayed(m, step.valid, latency)),
            sums.first.eq(delayed(m, step.first, latency)),
            sums.last.eq(delayed(m, step.last, latency)),
            requantizer.relu.eq(f.relu),
            requantizer.valid.eq(sums.total_valid),
            results.valid.eq(requantizer.result_valid),
            results.result.eq(requantizer.result),
            self.activations.write.eq(results.write),
            self.activations.write_data.eq(results.write_data),
        ]
        for to, value in zip(
            (*sums.bias, *sums.borrow, *_flat(sums.dense), *_flat(sums.lanes)),
            (*bias, *array.borrow, *_flat(array.dense), *_flat(array.lanes)),
            strict=True,
        ):
            m.d.comb += to.eq(value)
        for to, value in zip(
            (*requantizer.total, *requantizer.shift, *self.activations.write_address),
            (*sums.total, *shift, *results.write_address),
            strict=True,
        ):
            m.d.comb += to.eq(value)


class _Step:
    """What travels with a step."""

    def __init__(
        self,
        valid: Any,
        first: Any,
        last: Any,
        weight: Any,
        *,
        address: Sequence[Any] = (),
        outside: Sequence[Any] = (),
    ) -> None:
        self.valid, self.first, self.last, self.weight = valid, first, last, weight
        self.address, self.outside = address, outside

    def register(self, m: Module, enable: Any) -> _Step:
        later = self._like()
        with m.If(enable):
            m.d.sync += [to.eq(value) for to, value in zip(later._all(), self._all(), strict=True)]
        return later

    def unless(self, m: Module, other: Any, step: _Step) -> _Step:
        chosen = self._like()
        values = zip(chosen._all(), self._all(), step._all(), strict=True)
        m.d.comb += [to.eq(Mux(other, instead, value)) for to, value, instead in values]
        return chosen

    def _all(self) -> list[Any]:
        return [self.valid, self.first, self.last, self.weight, *self.address, *self.outside]

    def _like(self) -> _Step:
        addresses, outside = (tuple(Signal(signal.shape()) for signal in part) for part in (self.address, self.outside))
        return _Step(Signal(), Signal(), Signal(), Signal(range(WEIGHT_WORDS)), address=addresses, outside=outside)


def _flat(rows: list[list[Any]]) -> list[Any]:
    return [item for row in rows for item in row]
