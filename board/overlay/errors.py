"""What can be wrong with a program or with the overlay."""

from __future__ import annotations

from enum import IntEnum

from protocol.errors import BeltsightError


class ProgramError(BeltsightError):
    """A program for the overlay that cannot be meant."""


class OverlayError(BeltsightError):
    """The overlay stopped with an error or missed a deadline."""


class Fault(IntEnum):
    """Codes of the register ERROR."""

    NONE = 0
    OPCODE = 1  # no such instruction
    PROGRAM_END = 2  # the program ended without End
    SEGMENT = 3  # an access outside its segment
    READ = 4  # the memory port answered a read with an error
    WRITE = 5  # the memory port answered a write with an error
    TOKENS = 6  # more tokens between two units than the counter holds
    WATCHDOG = 7  # no unit moved for WATCHDOG cycles: a wait without its signal, or a memory that does not answer


EXPLANATIONS = {
    Fault.OPCODE: "there is no such instruction: export the model again",
    Fault.PROGRAM_END: "the program has no end: export the model again",
    Fault.SEGMENT: "an access outside the program's memory: export the model again",
    Fault.READ: "the memory refused a read: check the design's memory port, restart the board",
    Fault.WRITE: "the memory refused a write: check the design's memory port, restart the board",
    Fault.TOKENS: "units signal each other too often: export the model again",
    Fault.WATCHDOG: "nothing moved any more: export the model again, or restart the board if that does not help",
}


def explain(code: int, instruction: int) -> str:
    """The registers ERROR and ERROR_PC in words."""
    if code not in list(Fault) or code == Fault.NONE:
        return f"the overlay stopped with the unknown code {code}: rebuild it with `beltsight overlay`"
    fault = Fault(code)
    return f"the overlay stopped with {fault.name} near instruction {instruction}: {EXPLANATIONS[fault]}"
