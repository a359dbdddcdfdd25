"""The error tree. `str(error)` is one line that says what went wrong and what to do next.

Vendor errors (ZeroMQ, paho, OpenCV, ONNX Runtime, sqlite3, pynq) are translated into these at the seam that met them.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from protocol.console import STDERR

EXIT_BAD_INPUT = 2
EXIT_UNFIT = 3  # an export made its package, which should judge no part
EXIT_READER_LEFT = 141  # what shells report for a command whose reader left
EXIT_INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


class BeltsightError(Exception):
    """Anything Beltsight reports on purpose."""


class InputError(BeltsightError):
    """What the user gave cannot be used: an option, a file, a folder, a port."""


class ConfigError(InputError):
    """A configuration file has an unknown key, a wrong type or an impossible value."""


class ManifestError(InputError):
    """A model package is incomplete, altered, or of another format version."""


class MessageError(BeltsightError):
    """Bytes from outside are not a message of this protocol."""


class SourceError(BeltsightError):
    """The frame source stopped: camera unplugged, end of a stream that should not end."""


class EngineError(BeltsightError):
    """An engine could not produce the anomaly map of this image."""


class SinkError(BeltsightError):
    """A verdict could not be stored or handed on."""


def run_resumable(main: Callable[[], int]) -> int:
    """`run_main` for work that goes on where it stopped: Ctrl-C says so."""
    return run_main(main, interrupted="interrupted; the same command goes on where it stopped")


def run_main(main: Callable[[], int], *, interrupted: str = "interrupted") -> int:
    """Run a command's `main`: a `BeltsightError`, Ctrl-C and a reader that left become one line and an exit code.

    A terminal that knows ASCII alone gets question marks, not a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = main()
        if sys.stdout:  # None where it was closed
            sys.stdout.flush()
    except BeltsightError as error:
        STDERR.write(f"beltsight: {error}")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        STDERR.write(f"beltsight: {interrupted}")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # as of `… | head`: whatever is left to say goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_READER_LEFT
    return code
