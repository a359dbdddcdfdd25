"""Runs a command that ends, with all that it started, when whoever started this program does.

A compiler works for minutes. Whoever waits for it may be killed, and then nobody else would end it. Its end closes our
standard input, however it ended:

    python companion.py g++ -c slow.cpp
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

LOOK_EVERY_S = 0.02


def main() -> int:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    while child.poll() is None:
        if select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
