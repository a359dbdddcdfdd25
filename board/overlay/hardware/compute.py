"""The compute unit: takes an instruction, runs its steps through the array, writes the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed

from board.overlay.hardware.activation import ActivationMemory
from board.overlay.hardware.addresses import Addresses
from board.overlay.hardware.array import MacArray
from board.overlay.hardware.component import SPREAD_CYCLES, Elaboratable, Stream, copied, data, delayed, kept, spread
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

PACK_CYCLES = 2  # padding; both pixels in one operand, whose register drives twelve multipliers
OPERAND_CYCLES = ActivationMemory.READ_CYCLES + PACK_CYCLES  # from a step to its operands
PARAMETER_CYCLES = WeightMemory.READ_CYCLES - SPREAD_CYCLES  # from the start to the order to load what is read
PADDED_BYTES = 4  # by one register


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
        current = data(8 * INSTRUCTION_BYTES)
        takes = [Signal(init=1, attrs={"keep": "true"}) for _ in range(2)]  # the same as `idle`
        for half, take in zip((slice(0, 128), slice(128, 256)), takes, strict=True):
            with m.If(take):
                m.d.sync += current[half].eq(self.instruction.payload[half])
        f = split_fields(current, Compute)
        m.submodules.sequencer = sequencer = Sequencer(f)
        m.submodules.results = results = Results(f)
        start = Signal()
        parameters = self._parameters(m, delayed(m, start, PARAMETER_CYCLES))
        m.d.comb += [sequencer.start.eq(start), results.start.eq(start), self.finished.eq(results.finished)]

        m.d.comb += self.instruction.ready.eq(self.idle)
        with m.FSM():
            with m.State("IDLE"), m.If(self.instruction.valid):
                m.d.sync += [copy.eq(0) for copy in (self.idle, *takes)]
                m.next = "START"
            with m.State("START"):
                m.d.comb += start.eq(1)
                m.next = "RUN"
            with m.State("RUN"), m.If(results.finished):
                m.d.sync += [copy.eq(1) for copy in (self.idle, *takes)]
                m.next = "IDLE"

        step = self._fetch_step(m, f, sequencer)
        steps = Signal()  # the weights are those of steps, no longer the parameters
        m.d.sync += steps.eq(Mux(delayed(m, start, PARAMETER_CYCLES), 1, steps & ~results.finished))
        weight = delayed(m, step.weight, OPERAND_CYCLES - WeightMemory.READ_CYCLES)
        m.d.comb += self.weights.address.eq(Mux(steps, weight, f.weights))
        # a maximum is taken of products with 1
        m.d.comb += self.weights.one.eq(steps & (f.mode == Mode.MAX))
        self._compute(m, f, step, parameters, results)
        return m

    def _parameters(self, m: Module, load: Any) -> tuple[list[Any], list[Any]]:
        """Loaded SPREAD_CYCLES after `load`."""
        bias = [data(signed(32), name=f"bias{lane}") for lane in range(CHANNELS_IN)]
        shift = [data(5, name=f"shift{lane}") for lane in range(CHANNELS_IN)]
        nows = spread(m, load, 2 * CHANNELS_IN)
        for lane in range(CHANNELS_IN):
            entry = self.weights.data.word_select(lane, 8 * PARAMETER_BYTES)
            with m.If(nows[2 * lane]):
                m.d.sync += bias[lane].eq(entry[:32])
            with m.If(nows[2 * lane + 1]):
                m.d.sync += shift[lane].eq(entry[32:37])
        return bias, shift

    def _fetch_step(self, m: Module, f: Any, sequencer: Sequencer) -> Any:
        """From the sequencer to the memory; from here on nothing waits any more."""
        m.submodules.addresses = addresses = Addresses()
        refused = kept(5, "refused")  # a step was refused: a register for the pins of each part
        m.d.comb += [
            sequencer.enable.eq(~refused[0]),
            addresses.enable.eq(~refused[1]),
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
            step = step.register(m, ~refused[2])
        ready = _Step(
            step.valid, step.first, step.last, step.weight, address=addresses.address, outside=addresses.outside
        )
        # A step that is refused waits aside, so that the sequencer hears of it a cycle later and from a register.
        aside = ready.register(m, ~refused[2])
        step = ready.unless(m, (refused[3], refused[4]), aside)
        memory = self.activations
        m.d.sync += [copy.eq(self.blocked) for copy in refused]
        m.d.comb += [
            memory.step.eq(Cat(~outside & step.valid for outside in step.outside)),
            *(to.eq(value) for to, value in zip(memory.step_address, step.address, strict=True)),
            self.stepped.eq(step.valid & memory.step_grant),
            self.blocked.eq(step.valid & ~memory.step_grant),
        ]
        return _Step(self.stepped, step.first, step.last, step.weight, outside=step.outside)

    def _compute(self, m: Module, f: Any, step: Any, parameters: Any, results: Results) -> None:
        bias, shift = parameters
        m.submodules.array = array = MacArray()
        m.submodules.sums = sums = Sums()
        m.submodules.requantizer = requantizer = Requantizer()
        for i, operand in enumerate(self._operands(m, f.mode == Mode.MAX, step.outside)):
            m.d.comb += array.a[i].eq(operand)
            for j in range(CHANNELS_OUT):
                m.d.comb += array.w[j][i].eq(self.weights.data.word_select(CHANNELS_IN * j + i, 8))
        ahead = OPERAND_CYCLES + MacArray.CYCLES - Sums.AHEAD
        m.d.comb += [
            sums.lane_mode.eq(f.mode != Mode.DENSE),
            sums.max_mode.eq(f.mode == Mode.MAX),
            sums.valid.eq(delayed(m, step.valid, ahead)),
            sums.first.eq(delayed(m, step.first, ahead)),
            sums.last.eq(delayed(m, step.last, ahead)),
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

    def _operands(self, m: Module, is_max: Any, outside: Sequence[Any]) -> list[Any]:
        """Of each channel, both pixels packed; OPERAND_CYCLES after the step."""
        parts = CHANNELS_IN // PADDED_BYTES
        outsides = [copied(m, delayed(m, signal, ActivationMemory.READ_CYCLES - 1), parts) for signal in outside]
        paddings = [Cat(Const(0, 7), copy) for copy in copied(m, is_max, PIXELS)]
        operands = []
        for i in range(CHANNELS_IN):
            a = [data(signed(8), name=f"value{p}_{i}") for p in range(PIXELS)]
            for p in range(PIXELS):
                read = self.activations.step_data[p].word_select(i, 8)
                m.d.sync += a[p].eq(Mux(outsides[p][i // PADDED_BYTES], paddings[p], read))
            # a₁·2¹⁶ + a₀: the upper 9 bits lose one where a₀ is negative
            upper = Signal(signed(9), name=f"upper_{i}")
            m.d.comb += upper.eq(a[1] - a[0][7])
            # subtle: `keep` holds this register outside the multipliers, which have two of their own
            operand = data(signed(25), name=f"operand_{i}", attrs={"keep": "true"})
            m.d.sync += operand.eq(Cat(a[0], a[0][7].replicate(8), upper))
            operands.append(operand)
        return operands


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

    def unless(self, m: Module, others: tuple[Any, Any], step: _Step) -> _Step:
        """`others` are the same: one for the addresses, one for the rest."""
        chosen, addresses = self._like(), len(self.address)
        values = zip(chosen._all(), self._all(), step._all(), strict=True)
        for number, (to, value, instead) in enumerate(values):
            m.d.comb += to.eq(Mux(others[number >= addresses], instead, value))
        return chosen

    def _all(self) -> list[Any]:
        return [*self.address, self.valid, self.first, self.last, self.weight, *self.outside]

    def _like(self) -> _Step:
        addresses, outside = (tuple(data(signal.shape()) for signal in part) for part in (self.address, self.outside))
        return _Step(Signal(), data(), data(), data(range(WEIGHT_WORDS)), address=addresses, outside=outside)


def _flat(rows: list[list[Any]]) -> list[Any]:
    return [item for row in rows for item in row]
