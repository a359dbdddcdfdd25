"""Runs a command that ends, with all that it started, when whoever started this program does.

A compiler works for minutes. Whoever waits for it may be killed, and then nobody else would end it, or remove the
folder that it worked in. Its end closes our standard input, however it ended:

    python companion.py FOLDER g++ -c slow.cpp
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys

LOOK_EVERY_S = 0.02


def main() -> int:
    folder, command = sys.argv[1], sys.argv[2:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    while child.poll() is None:
        if select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            shutil.rmtree(folder, ignore_errors=True)  # another compiler writes there: whoever ends last removes all
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
