"""The driver, the bitstream and the document agree on where the overlay's registers lie."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from board.engines.fpga_pynq import FpgaSettings
from board.overlay.bitstream import build

FOLDER = Path(build.__file__).parent
M_AXI_GP0 = range(0x4000_0000, 0x8000_0000)  # what the processor sends to the logic (Xilinx UG585, table 4-1)


def test_vivado_is_told_the_drivers_address() -> None:
    command = build.vivado_command(build.parse_arguments([]), Path("sources"))
    assert int(command[-2], 16) == FpgaSettings().address
    assert FpgaSettings().address in M_AXI_GP0


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.tcl")) + sorted(FOLDER.glob("*.v")), ids=lambda path: path.name)
def test_no_script_has_an_address_of_its_own(path: Path) -> None:
    numbers = re.findall(r"0x([0-9a-fA-F_]{8,9})|32'h([0-9a-fA-F_]{8,9})", path.read_text())
    assert not [one or other for one, other in numbers if int((one or other).replace("_", ""), 16) in M_AXI_GP0]


def test_the_document_says_so_too() -> None:
    document = (FOLDER.parent / "ARCHITECTURE.md").read_text()
    assert re.findall(r"Registers at (0x\w+)", document) == [f"0x{FpgaSettings().address:08X}"]
