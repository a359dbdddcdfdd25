"""Runs the commands of its input, one a line, in Yosys: a process of its own, which takes 2 GB and may be ended."""

from __future__ import annotations

import sys

from pyosys import libyosys

if __name__ == "__main__":
    design = libyosys.Design()
    for line in sys.stdin:
        libyosys.run_pass(line.strip(), design)
