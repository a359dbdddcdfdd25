"""`python -m tests.survival.mortal_program ORDERS MODULE …`: a program of the host, with threads that can be killed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from protocol.errors import run_main
from tests.survival.mortal_threads import await_orders

if __name__ == "__main__":
    _, orders, module, *arguments = sys.argv
    program = importlib.import_module(module)
    await_orders(Path(orders))
    sys.argv = [module, *arguments]
    sys.exit(run_main(program.main))
