"""The registers of the AXI4-Lite port, 32 bits each: the hardware, the driver and the document read this table."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

ID_VALUE = 0x42454C54  # "BELT"
DEFAULT_ADDRESS = 0x43C0_0000  # where the design puts them, and the driver looks when no .hwh tells it

CONTROL_START, CONTROL_RESET, CONTROL_IRQ_ENABLE = 1, 2, 4
STATUS_BUSY, STATUS_DONE, STATUS_ERROR = 1, 2, 4
REFUSED_PAST, REFUSED_OVERLAP, REFUSED_LONG, REFUSED_FULL, REFUSED_MOTION = 1, 2, 4, 8, 16
ENCODER_QUADRATURE, ENCODER_DIRECTED, ENCODER_TURNED, BY_POSITION = 1, 2, 4, 8  # bits of ENCODER_MODE
MOTION_SILENT, MOTION_BACK, MOTION_SKIPPED, MOTION_OVERRAN = 1, 2, 4, 8  # bits of ENCODER_FAULT
LINE_BASE = 0x100  # from here on: LEDs, buttons, light barrier, gate
COUNTERS = ("CYCLES", "CYCLES_MAC", "CYCLES_PORT", "CYCLES_TOKEN", "BEATS_READ", "BEATS_WRITTEN")


@dataclass(frozen=True)
class Register:
    name: str
    offset: int
    access: str  # ro, rw, wo
    text: str


def _table() -> tuple[Register, ...]:
    rows = [
        ("ID", "ro", "the letters BELT"),
        ("VERSION", "ro", "hash of the instruction set and of this table"),
        ("CONTROL", "rw", "bit 0 start, bit 1 reset the engine (both read as 0), bit 2 enable the interrupt"),
        ("STATUS", "rw", "bit 0 busy, bit 1 done, bit 2 error; writing 1 to bit 1 or 2 clears it and the interrupt"),
        ("ERROR", "ro", "code of the first fault since the start"),
        ("ERROR_PC", "ro", "instructions dispatched when it happened"),
        ("PROGRAM", "rw", "first byte of the program in segment 0, a multiple of 8"),
        ("INSTRUCTIONS", "rw", "instructions in the program"),
        ("WATCHDOG", "rw", "cycles without progress until the fault WATCHDOG; 0 disables it"),
        ("CYCLES", "ro", "from start to the end of the program"),
        ("CYCLES_MAC", "ro", "in which the array took a step"),
        ("CYCLES_PORT", "ro", "in which a step waited for a port of the activation memory"),
        ("CYCLES_TOKEN", "ro", "in which compute waited for a token or an instruction"),
        ("BEATS_READ", "ro", "from DDR"),
        ("BEATS_WRITTEN", "ro", "to DDR"),
        ("SEGMENT0", "rw", "bus address of segment 0, a multiple of 8"),
        ("SEGMENT1", "rw", "bus address of segment 1"),
        ("SEGMENT2", "rw", "bus address of segment 2"),
        ("SEGMENT3", "rw", "bus address of segment 3"),
        ("SIZE0", "rw", "bytes of segment 0, a multiple of 8"),
        ("SIZE1", "rw", "bytes of segment 1"),
        ("SIZE2", "rw", "bytes of segment 2"),
        ("SIZE3", "rw", "bytes of segment 3"),
    ]
    line = [
        ("TIME_LOW", "ro", "free-running count of cycles; reading it holds TIME_HIGH"),
        ("TIME_HIGH", "ro", "upper half of the count at the last read of TIME_LOW"),
        ("LEDS", "rw", "bits 0..3: the four green LEDs"),
        ("BUTTONS", "ro", "bits 0..3: the four buttons; bit 4: light barrier after its filter"),
        ("BARRIER_FILTER", "rw", "cycles that the light barrier must be steady; bit 31 inverts its input"),
        ("BARRIER_COUNT", "ro", "interruptions since power-up; bits 16..31: those lost because 16 waited unread"),
        ("BARRIER_LOW", "ro", "time stamp of the oldest unread interruption"),
        ("BARRIER_HIGH", "ro", "its upper half"),
        ("BARRIER_NEXT", "rw", "reads the number of unread interruptions; a write drops the oldest"),
        ("GATE_LOW", "rw", "time at which the gate opens, lower half"),
        ("GATE_HIGH", "rw", "upper half"),
        ("GATE_CYCLES", "rw", "length of the pulse; a write queues time and length"),
        (
            "GATE_STATUS",
            "ro",
            "bits 0..7 pulses queued, bit 8 gate is open, bits 16..31 pulses that came too late or too many",
        ),
    ]
    table = [Register(name, 4 * i, access, text) for i, (name, access, text) in enumerate(rows)]
    table += [Register(name, LINE_BASE + 4 * i, access, text) for i, (name, access, text) in enumerate(line)]
    return tuple(table)


def _timer_table() -> tuple[Register, ...]:
    rows = [
        ("TIMER_VERSION", "ro", "hash of this table and of the line's registers"),
        ("TIMER_MARK", "rw", "0 after a reset: who has written here sees by it that the overlay was loaded anew"),
        ("BARRIER_SEQUENCE", "ro", "number of the oldest unread interruption; the lost ones are counted too"),
        ("BARRIER_LOST", "rw", "bit 0: one was lost since this was cleared; writing 1 clears it"),
        (
            "GATE_LIMIT",
            "rw",
            "most cycles of a window, also of one of positions; 0 after a reset: nothing opens the gate; "
            "a write shuts it",
        ),
        (
            "GATE_REFUSED",
            "rw",
            "why windows were refused: bit 0 not ahead, 1 not behind the one before, 2 longer than GATE_LIMIT, "
            "3 8 wait, 4 ENCODER_FAULT is not 0; writing 1 clears",
        ),
        ("GATE_SHUT", "wo", "a write closes the gate at once and drops what is queued"),
        (
            "ENCODER_MODE",
            "rw",
            "bit 0: every edge of A and B counts (quadrature), else rising edges of A; bit 1: without quadrature, B "
            "high is backwards; bit 2 turns the direction; bit 3: GATE_LOW, GATE_HIGH, GATE_CYCLES are counts of the "
            "belt, not cycles; a write shuts the gate",
        ),
        ("ENCODER_FILTER", "rw", "cycles that A and B must be steady, 16 bits"),
        ("ENCODER_SILENCE", "rw", "cycles without a count forward, from which on positions are not believed"),
        ("ENCODER_BACK", "rw", "counts that the belt may go back before positions are not believed, 16 bits"),
        (
            "ENCODER_FAULT",
            "rw",
            "bit 0 silent for ENCODER_SILENCE, 1 went back further than ENCODER_BACK, 2 A and B changed at once, 3 the "
            "gate was open for GATE_LIMIT; while one is set, windows of positions are refused and the gate is shut; "
            "writing 1 clears",
        ),
        ("POSITION_LOW", "ro", "the belt's position in counts, signed, at the last read of TIME_LOW, lower half"),
        ("POSITION_HIGH", "ro", "its upper half"),
        ("BARRIER_POSITION_LOW", "ro", "the belt's position at the oldest unread interruption"),
        ("BARRIER_POSITION_HIGH", "ro", "its upper half"),
        (
            "PASSAGE_FILTER",
            "rw",
            "as BARRIER_FILTER, of the second light barrier, where the gate's window begins; bit 5 of BUTTONS is its "
            "level",
        ),
        ("PASSAGE_NEXT", "rw", "as BARRIER_NEXT"),
        ("PASSAGE_LOST", "rw", "as BARRIER_LOST"),
        ("PASSAGE_SEQUENCE", "ro", "as BARRIER_SEQUENCE"),
        ("PASSAGE_LOW", "ro", "as BARRIER_LOW"),
        ("PASSAGE_HIGH", "ro", "as BARRIER_HIGH"),
        ("PASSAGE_POSITION_LOW", "ro", "as BARRIER_POSITION_LOW"),
        ("PASSAGE_POSITION_HIGH", "ro", "as BARRIER_POSITION_HIGH"),
    ]
    return tuple(Register(name, 0x200 + 4 * i, access, text) for i, (name, access, text) in enumerate(rows))


REGISTERS = _table()  # VERSION is a hash of it, and programs carry that
TIMER_REGISTERS = _timer_table()  # a hash of its own: programs know nothing of the line
OFFSETS = {register.name: register.offset for register in (*REGISTERS, *TIMER_REGISTERS)}
LINE = tuple(name for name, offset in OFFSETS.items() if offset >= LINE_BASE)


def timer_table() -> str:
    """The timer's registers as Markdown: a part of ARCHITECTURE.md."""
    lines = ["| offset | register | access | meaning |", "|---|---|---|---|"]
    lines += [f"| 0x{r.offset:03x} | {r.name} | {r.access} | {r.text} |" for r in TIMER_REGISTERS]
    return "\n".join(lines) + "\n"


def timer_version() -> int:
    """Hash of all that timer and driver must agree on, 32 bits, in the register TIMER_VERSION."""
    rows = [row for row in (*REGISTERS, *TIMER_REGISTERS) if row.offset >= LINE_BASE]
    return int.from_bytes(hashlib.sha256(str(rows).encode()).digest()[:4], "little")
