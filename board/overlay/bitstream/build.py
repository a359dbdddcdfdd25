"""Command of beltsight overlay: from the hardware's description to beltsight.bit and beltsight.hwh.

With Vivado 2022.1 or later, or with the open tools (Yosys, nextpnr-xilinx, Project X-Ray), whose bitstream has no .hwh:
the driver then takes address and clock from its settings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from board.overlay import isa
from board.overlay.bitstream.wrapper import MODULE, emit_wrapper
from board.overlay.errors import OverlayError
from board.overlay.hardware import single_accesses
from board.overlay.hardware.overlay import NAME
from board.overlay.registers import DEFAULT_ADDRESS
from board.overlay.simulation.design import find_verilog
from board.overlay.synthesis.yosys import KEEP, run_yosys

HERE = Path(__file__).resolve().parent
PRODUCT = "beltsight"
COPIED = ("build.tcl", "block_design.tcl", "processing_system.tcl", "pynq_z2.xdc", "timing.xdc", "pynq_z2.v")
PART = "xc7z020clg400-1"
OPEN_TOOLS = ("nextpnr-xilinx", "fasm2frames", "xc7frames2bit")
MISSING = 2  # exit code where a tool has to be installed first
INSTALL = {
    "vivado": "install Vivado 2022.1 to 2024.1 (the free edition has the XC7Z020) and source its settings64.sh, "
    "or take the open tools with --tool nextpnr, or only the sources with --emit-only",
    "nextpnr": "install nextpnr-xilinx and Project X-Ray (the openXC7 toolchain has both), then name their data with "
    "--chipdb xc7z020.bin and --prjxray-db .../zynq7",
}


@dataclass(frozen=True)
class Settings:
    out: Path
    tool: str
    emit_only: bool
    clock_mhz: int
    jobs: int
    chipdb: Path | None
    prjxray_db: Path | None


def emit_sources(out: Path) -> Path:
    """Everything a tool needs, in out/sources."""
    sources = out / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    verilog = find_verilog(HERE.parents[2] / "build" / "overlay")
    (sources / f"{NAME}.v").write_text(verilog)
    (sources / f"{MODULE}.v").write_text(emit_wrapper(verilog))
    (sources / f"{single_accesses.MODULE}.v").write_text(single_accesses.emit_single_accesses())
    for name in COPIED:
        shutil.copyfile(HERE / name, sources / name)
    return sources


def build(settings: Settings) -> int:
    missing = [] if settings.emit_only else missing_tools(settings)
    if missing:
        print(f"beltsight: {', '.join(missing)} not found: {INSTALL[settings.tool]}", file=sys.stderr)
        return MISSING
    sources = emit_sources(settings.out)
    if settings.emit_only:
        print(f"beltsight: sources in {sources}")
        return 0
    if settings.tool == "vivado":
        commands = [vivado_command(settings, sources)]
    else:
        _synthesise_for_nextpnr(sources)
        commands = nextpnr_commands(settings, sources)
    for command in commands:
        code = subprocess.run(command, cwd=settings.out, check=False).returncode  # noqa: S603
        if code:
            print(f"beltsight: {command[0]} ended with {code}: its messages are above", file=sys.stderr)
            return code
    write_sidecar(settings)
    print(f"beltsight: {settings.out / PRODUCT}.bit is ready: copy it and what lies beside it to the board")
    return 0


def missing_tools(settings: Settings) -> list[str]:
    if settings.tool == "vivado":
        return [] if shutil.which("vivado") else ["vivado"]
    missing = [tool for tool in OPEN_TOOLS if not shutil.which(tool)]
    given = {"--chipdb": settings.chipdb, "--prjxray-db": settings.prjxray_db}
    return missing + [option for option, path in given.items() if path is None or not path.exists()]


def vivado_command(settings: Settings, sources: Path) -> list[str]:
    log = settings.out / "vivado.log"
    arguments = (sources, settings.out, settings.clock_mhz, f"{DEFAULT_ADDRESS:#010x}", settings.jobs)
    command = ["vivado", "-mode", "batch", "-nojournal", "-log", str(log), "-source", str(sources / "build.tcl")]
    return [*command, "-tclargs", *map(str, arguments)]


def nextpnr_commands(settings: Settings, sources: Path) -> list[list[str]]:
    out, fasm, frames = settings.out, settings.out / f"{PRODUCT}.fasm", settings.out / f"{PRODUCT}.frames"
    database = settings.prjxray_db
    part_file = f"{database}/{PART}/part.yaml"
    route = ["nextpnr-xilinx", "--chipdb", str(settings.chipdb), "--xdc", str(sources / "pynq_z2.xdc")]
    route += ["--json", str(sources / "pynq_z2.json"), "--fasm", str(fasm), "--freq", str(settings.clock_mhz)]
    to_frames = ["fasm2frames", "--part", PART, "--db-root", str(database), str(fasm), str(frames)]
    to_bits = ["xc7frames2bit", "--part_file", part_file, "--part_name", PART]
    to_bits += ["--frm_file", str(frames), "--output_file", str(out / f"{PRODUCT}.bit")]
    return [route, to_frames, to_bits]


def _synthesise_for_nextpnr(sources: Path) -> None:
    files = (f"{NAME}.v", f"{single_accesses.MODULE}.v", "pynq_z2.v")
    steps = [f"read_verilog {' '.join(files)}", "hierarchy -top pynq_z2", *KEEP]
    steps += ["synth_xilinx -family xc7 -flatten -abc9 -top pynq_z2"]
    # nextpnr takes the cells that only remember names of modules for logic
    run_yosys([*steps, "delete t:$scopeinfo", "write_json pynq_z2.json"], sources)


def write_sidecar(settings: Settings) -> None:
    """What a person wants to know of a bitstream; the driver asks the register VERSION itself."""
    about = {
        "version": f"{isa.version():08x}",
        "tool": settings.tool,
        "clock_mhz": settings.clock_mhz,
        "registers": f"{DEFAULT_ADDRESS:#010x}",
    }
    (settings.out / f"{PRODUCT}.json").write_text(json.dumps(about, indent=2) + "\n")


def parse_arguments(arguments: Sequence[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="beltsight overlay", description="the overlay's bitstream for the PYNQ-Z2")
    parser.add_argument("--out", type=Path, default=Path("build/overlay"))
    parser.add_argument("--tool", choices=sorted(INSTALL), default="vivado")
    parser.add_argument("--emit-only", action="store_true", help="Verilog, Tcl and constraints, without any tool")
    parser.add_argument("--clock-mhz", type=int, default=100, choices=range(25, 101), metavar="25..100")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--chipdb", type=Path, help="of nextpnr-xilinx, for the XC7Z020")
    parser.add_argument("--prjxray-db", type=Path, help="folder zynq7 of Project X-Ray's database")
    given = parser.parse_args(arguments)
    return Settings(
        out=given.out.resolve(),
        tool=given.tool,
        emit_only=given.emit_only,
        clock_mhz=given.clock_mhz,
        jobs=given.jobs,
        chipdb=given.chipdb,
        prjxray_db=given.prjxray_db,
    )


def main() -> int:
    try:
        return build(parse_arguments(sys.argv[1:]))
    except OverlayError as error:
        print(f"beltsight: {error}", file=sys.stderr)
        return MISSING


if __name__ == "__main__":
    sys.exit(main())
