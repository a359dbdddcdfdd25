"""Yosys for xc7: Verilog in, netlist out, kept while neither the Verilog nor Yosys changes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from board.overlay.errors import OverlayError
from board.overlay.synthesis.netlist import Netlist, load_netlist

PACKAGE = "pyosys"
TIMEOUT_S = 3600  # 70 seconds on a quiet machine
# Part of a larger design: no pads, no clock buffer.
SYNTHESIS = "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf"
# subtle: `keep` of a register is that of its wire; its flip-flop has to have it too, or those that hold the same become
# one
KEEP = ("proc", "setattr -set keep 1 a:keep %ci1:+$dff[Q]")


def synthesise(verilog: str, top: str, folder: Path) -> Netlist:
    """Raises OverlayError where Yosys is not installed or refuses."""
    key = hashlib.sha256("\n".join((verilog, top, SYNTHESIS, *KEEP, yosys_version())).encode()).hexdigest()[:16]
    netlist = folder / f"netlist-{top}-{key}.json"
    if not netlist.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"netlist-{top}-*.json"):
            old.unlink()
        source, fresh = folder / f"{top}.v", netlist.with_suffix(".part")
        source.write_text(verilog)
        steps = [f"read_verilog {source.name}", f"hierarchy -top {top}", *KEEP, f"{SYNTHESIS} -top {top}"]
        run_yosys([*steps, f"write_json {fresh.name}"], folder)
        fresh.rename(netlist)
    return load_netlist(netlist, top)


def run_yosys(commands: Sequence[str], folder: Path) -> None:
    """In `folder`; what Yosys says goes to yosys.log there. Raises OverlayError."""
    yosys_version()
    log = folder / "yosys.log"
    with log.open("w") as output:
        script = Path(__file__).with_name("yosys_commands.py")
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, str(script)],
                input="\n".join(commands) + "\n",
                text=True,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OverlayError(f"Yosys took more than {TIMEOUT_S} s: see {log}") from None
    if done.returncode:
        reasons = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("ERROR")]
        reason = reasons[-1] if reasons else f"it ended with {done.returncode}; 2 GB of memory must be free"
        raise OverlayError(f"Yosys failed: {reason}: see {log}")


def yosys_version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise OverlayError(f"Yosys is not installed: pip install {PACKAGE}") from None
