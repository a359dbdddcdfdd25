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
