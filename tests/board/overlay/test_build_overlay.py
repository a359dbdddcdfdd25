"""What beltsight overlay hands to Vivado or to the open tools, run by a Tcl interpreter with Vivado's commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from board.engines.fpga_pynq import IP_NAME, FpgaSettings
from board.overlay import isa
from board.overlay.bitstream import build
from board.overlay.bitstream.wrapper import MODULE, emit_wrapper, top_ports
from board.overlay.hardware import single_accesses
from board.overlay.hardware.overlay import NAME
from board.overlay.synthesis.yosys import KEEP, run_yosys

STUBS = Path(__file__).with_name("vivado_stubs.tcl")
PINS = {"leds": ("O", 4), "buttons": ("I", 4), "barrier": ("I", 1), "gate": ("O", 1), "passage": ("I", 1)}
PINS |= {"encoder": ("I", 2)}
CONSTRAINTS = ("pynq_z2.xdc", "timing.xdc")
Records = list[list[str]]

needs_tclsh = pytest.mark.skipif(not shutil.which("tclsh"), reason="tclsh is not installed: apt-get install tcl")


@pytest.fixture(scope="module")
def emitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.emit_sources(tmp_path_factory.mktemp("overlay"))


@pytest.fixture
def sources(emitted: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "sources"
    shutil.copytree(emitted, copy)
    return copy


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in which Vivado has left its bitstream and its hand-off."""
    bitstream = tmp_path / "vivado/beltsight.runs/impl_1/beltsight_wrapper.bit"
    bitstream.parent.mkdir(parents=True)
    bitstream.write_text("bits")
    handoff = tmp_path / "vivado/beltsight.gen/sources_1/bd/beltsight/hw_handoff/beltsight.hwh"
    handoff.parent.mkdir(parents=True)
    handoff.write_text("hand-off")
    return tmp_path


def prelude(
    sources: Path,
    record: Path,
    *,
    version: str = "2022.1",
    slack: str = "0.4",
    hold_slack: str = "0.05",
    progress: str = "100%",
) -> str:
    wrapper = (sources / f"{MODULE}.v").read_text()
    names = re.findall(r"^  (?:input|output) (?:\[\d+:0\] )?(\w+)", wrapper, re.MULTILINE)
    pins = [name for name in names if not name.startswith(("s_axi_", "m_axi_"))]
    ports = [f"{{{name}[{i}]}}" if bits > 1 else name for name, (_, bits) in PINS.items() for i in range(bits)]
    verilog = (sources / f"{NAME}.v").read_text()
    synchronisers = re.findall(rf"^module \\{NAME}\.line\.(sync_\w+) .*?^endmodule", verilog, re.MULTILINE | re.DOTALL)
    bodies = dict(re.findall(rf"^module \\{NAME}\.line\.(sync_\w+) (.*?)^endmodule", verilog, re.MULTILINE | re.DOTALL))
    cells = [
        f"overlay/line/{name}/{stage}_reg"
        for name in synchronisers
        for stage in re.findall(r"^  reg (?:\[\d+:0\] )?(\w+) =", bodies[name], re.MULTILINE)
    ]
    lines = (
        f"set ::record [open {{{record}}} w]",
        f"set ::module_name {MODULE}",
        f"set ::module_pins {{{' '.join(pins)}}}",
        "set ::module_interfaces {s_axi slave m_axi master}",
        f"set ::project_ports {{{' '.join(ports)}}}",
        f"set ::project_cells {{{' '.join(cells)}}}",
        f"set ::vivado_version {version}",
        f"set ::slack {slack}",
        f"set ::hold_slack {hold_slack}",
        f"set ::run_progress {progress}",
        f"source {{{STUBS}}}",
    )
    return "\n".join(lines) + "\n"


def run_tcl(sources: Path, script: str, arguments: list[str], **answers: str) -> tuple[int, str, Records]:
    """Exit code, errors, and what the commands were asked for."""
    record, start = sources / "record.txt", sources / "prelude.tcl"
    start.write_text(prelude(sources, record, **answers) + f"source {{{sources / script}}}\n")
    done = subprocess.run(["tclsh", str(start), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr, [line.split("\t") for line in record.read_text().splitlines()]


def build_design(sources: Path, **answers: str) -> tuple[int, str, Records]:
    arguments = [str(sources), str(sources.parent), "100", f"{FpgaSettings.address:#010x}", "2"]
    return run_tcl(sources, "build.tcl", arguments, **answers)


def find_mistakes(records: Records) -> list[str]:
    """What is wrong with a block design, one line each."""
    cells = {record[1]: record[2] for record in records if record[0] == "cell"}
    nets = [set(record[1:]) for record in records if record[0] == "net"]
    links = [set(record[1:]) for record in records if record[0] == "interface"]
    clocked = {"ps7/M_AXI_GP0_ACLK", "ps7/S_AXI_HP0_ACLK", "reset/slowest_sync_clk"}
    clocked |= {f"{cell}/aclk" for cell in ("overlay", "registers", "memory")}
    reset = {f"{cell}/aresetn" for cell in ("overlay", "registers", "memory")}
    wanted_nets = [
        {"ps7/FCLK_CLK0", *clocked},
        {"reset/peripheral_aresetn", *reset},
        {"ps7/FCLK_RESET0_N", "reset/ext_reset_in"},
        {"overlay/irq", "ps7/IRQ_F2P"},
        *({pin, f"overlay/{pin}"} for pin in PINS),
    ]
    wanted_links = [
        {"ps7/M_AXI_GP0", "registers/S_AXI"},
        {"registers/M_AXI", "overlay/s_axi"},
        {"overlay/m_axi", "memory/S_AXI"},
        {"memory/M_AXI", "ps7/S_AXI_HP0"},
        {"DDR", "ps7/DDR"},
        {"FIXED_IO", "ps7/FIXED_IO"},
    ]
    mistakes = [f"no net {sorted(net)}" for net in wanted_nets if net not in nets]
    mistakes += [f"no interface {sorted(link)}" for link in wanted_links if link not in links]
    mistakes += [f"unknown net {sorted(net)}" for net in nets if net not in wanted_nets]
    ports = {record[1]: (record[2], int(record[3])) for record in records if record[0] == "port"}
    if ports != PINS:
        mistakes.append(f"ports {ports}")
    addresses = {record[2]: (record[1], int(record[3]), record[4]) for record in records if record[0] == "address"}
    if addresses.get("overlay/s_axi/reg0") != ("ps7/Data", FpgaSettings.address, "4K"):
        mistakes.append(f"registers at {addresses.get('overlay/s_axi/reg0')}")
    if addresses.get("ps7/S_AXI_HP0/HP0_DDR_LOWOCM") != ("overlay/m_axi", 0, "512M"):
        mistakes.append("the memory is not seen")
    if IP_NAME not in cells.get("overlay", ""):
        mistakes.append("the driver does not find the overlay by its type")
    settings = {(record[1], record[2]): record[3] for record in records if record[0] == "property"}
    for cell, key, value in (
        ("ps7", "CONFIG.PCW_CRYSTAL_PERIPHERAL_FREQMHZ", "50"),
        ("ps7", "CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ", "100"),
        ("ps7", "CONFIG.PCW_S_AXI_HP0_DATA_WIDTH", "64"),
        ("ps7", "CONFIG.PCW_UIPARAM_DDR_BUS_WIDTH", "16 Bit"),
        ("registers", "CONFIG.MI_PROTOCOL", "AXI4LITE"),
        ("memory", "CONFIG.MI_PROTOCOL", "AXI3"),
    ):
        if settings.get((cell, key)) != value:
            mistakes.append(f"{key} of {cell} is {settings.get((cell, key))}")
    if ["validated"] not in records or ["launched", "impl_1"] not in records:
        mistakes.append("not validated, or not run")
    return mistakes


@needs_tclsh
def test_the_block_design_is_complete(sources: Path, made: Path) -> None:
    code, errors, records = build_design(sources)
    assert (code, errors) == (0, "")
    assert find_mistakes(records) == []
    assert (made / "beltsight.bit").read_text() == "bits"
    assert (made / "beltsight.hwh").read_text() == "hand-off"


@needs_tclsh
@pytest.mark.parametrize(
    ("script", "text", "instead"),
    [
        ("block_design.tcl", "[get_bd_pins memory/aclk]", ""),  # a converter without clock
        ("block_design.tcl", "[get_bd_pins overlay/aresetn] ", ""),
        ("block_design.tcl", "ps7/M_AXI_GP0_ACLK", "ps7/M_AXI_GP1_ACLK"),  # no such pin
        ("block_design.tcl", "[get_bd_pins reset/ext_reset_in]", "[get_bd_pins overlay/aclk]"),  # connected twice
        ("block_design.tcl", "connect_bd_net [get_bd_pins overlay/irq] [get_bd_pins ps7/IRQ_F2P]", ""),
        (
            "block_design.tcl",
            "registers/M_AXI] [get_bd_intf_pins overlay/s_axi",
            "registers/M_AXI] [get_bd_intf_pins ps7/M_AXI_GP0",
        ),
        ("block_design.tcl", "-offset $register_address", "-offset 0x43C10000"),
        ("block_design.tcl", "-range 512M", "-range 256M"),
        ("block_design.tcl", "CONFIG.MI_PROTOCOL {AXI3}", "CONFIG.MI_PROTOCOL {AXI4}"),
        ("block_design.tcl", "-dir O gate", "-dir I gate"),
        ("block_design.tcl", "-reference beltsight_overlay_axi", "-reference beltsight_overlay"),
        ("block_design.tcl", "create_bd_cell -type ip", "create_bd_cel -type ip"),
        ("block_design.tcl", "proc_sys_reset:5.0", "proc_sys_reset:6.0"),
        ("block_design.tcl", "    validate_bd_design\n", ""),
        ("processing_system.tcl", "CONFIG.PCW_USE_S_AXI_HP0 {1}", "CONFIG.PCW_USE_S_AXI_HP0 {0}"),
        ("processing_system.tcl", "CONFIG.PCW_IRQ_F2P_INTR {1}", "CONFIG.PCW_IRQ_F2P_INTR {0}"),
        ("processing_system.tcl", "{16 Bit}", "{32 Bit}"),
        (
            "processing_system.tcl",
            "CONFIG.PCW_CRYSTAL_PERIPHERAL_FREQMHZ {50}",
            "CONFIG.PCW_CRYSTAL_PERIPHERAL_FREQMHZ {33.3}",
        ),
        ("processing_system.tcl", "CONFIG.PCW_EN_CLK0_PORT {1}", "CONFIG.PCW_EN_CLK0_PORT"),
        ("build.tcl", "-to_step write_bitstream", "-to write_bitstream"),
        ("build.tcl", "pynq_z2.xdc", "pynq.xdc"),
        ("build.tcl", "timing.xdc", "times.xdc"),
    ],
)
def test_a_fault_in_the_scripts_is_found(sources: Path, made: Path, script: str, text: str, instead: str) -> None:
    assert made.is_dir()
    whole = (sources / script).read_text()
    assert text in whole
    (sources / script).write_text(whole.replace(text, instead, 1))
    code, _, records = build_design(sources)
    assert code != 0 or find_mistakes(records)


@needs_tclsh
@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ({"version": "2021.2"}, 2, "Vivado 2021.2 is older than 2022.1"),
        ({"progress": "60%"}, 1, "Vivado failed"),
        ({"slack": "-0.7"}, 1, "100 MHz is missed by 0.7 ns"),
        ({"hold_slack": "-0.1"}, 1, "its new value 0.1 ns early"),
    ],
)
def test_a_run_that_failed_leaves_no_bitstream(
    sources: Path, made: Path, answers: dict[str, str], code: int, message: str
) -> None:
    got, errors, _ = build_design(sources, **answers)
    assert got == code
    assert message in errors
    assert not (made / "beltsight.bit").exists()


def unconstrained(records: Records) -> list[str]:
    """Ports that are not placed, given a level and left out of timing exactly once."""
    everything = [f"{name}[{i}]" if bits > 1 else name for name, (_, bits) in PINS.items() for i in range(bits)]
    placed = Counter(record[1] for record in records if record[0] == "property" and record[2] == "PACKAGE_PIN")
    level = Counter(r[1] for r in records if r[0] == "property" and r[2:] == ["IOSTANDARD", "LVCMOS33"])
    timed = {(r[2], r[1]) for r in records if r[0] == "false_path"}
    ways = {port: "-to" if PINS[port.split("[")[0]][0] == "O" else "-from" for port in everything}
    sites = [record[3] for record in records if record[0] == "property" and record[2] == "PACKAGE_PIN"]
    bad = [port for port in everything if placed[port] != 1 or level[port] != 1 or (port, ways[port]) not in timed]
    return bad + [site for site, count in Counter(sites).items() if count > 1]


def read_constraints(sources: Path) -> tuple[int, str, Records]:
    (sources / "both.xdc").write_text("".join((sources / name).read_text() for name in CONSTRAINTS))
    return run_tcl(sources, "both.xdc", [])


@needs_tclsh
def test_every_pin_is_constrained_once(sources: Path) -> None:
    code, errors, records = read_constraints(sources)
    assert (code, errors) == (0, "")
    assert unconstrained(records) == []
    synchronised = [record[1] for record in records if record[2:] == ["ASYNC_REG", "TRUE"]]
    assert len(synchronised) == 8  # two registers each for the buttons, both barriers and the encoder
    sites = {record[1]: record[3] for record in records if record[0] == "property" and record[2] == "PACKAGE_PIN"}
    assert (sites["leds[3]"], sites["buttons[0]"], sites["barrier"], sites["gate"]) == ("M14", "D19", "Y18", "Y19")


@needs_tclsh
@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("PACKAGE_PIN P14", "PACKAGE_PIN R14"),  # two ports on a pin
        ("{leds[2]}", "{leds[4]}"),  # no such port
        ("PACKAGE_PIN Y19 ", ""),
        ("IOSTANDARD LVCMOS33 DRIVE", "IOSTANDARD LVCMOS18 DRIVE"),
        ("{buttons[*] barrier ", "{buttons[*] "),
        ("set_false_path -to", "set_false_paths -to"),
        ("stage[01]", "step[01]"),
    ],
)
def test_a_fault_in_the_constraints_is_found(sources: Path, text: str, instead: str) -> None:
    file = next(sources / name for name in CONSTRAINTS if text in (sources / name).read_text())
    file.write_text(file.read_text().replace(text, instead))
    code, _, records = read_constraints(sources)
    assert code != 0 or unconstrained(records)


def test_the_open_router_gets_what_it_takes(sources: Path, tmp_path: Path) -> None:
    """It stops at a property of anything but a port."""
    settings = build.parse_arguments(["--out", str(tmp_path), "--tool", "nextpnr", "--prjxray-db", "zynq7"])
    route = build.nextpnr_commands(settings, sources)[0]
    named = Path(route[route.index("--xdc") + 1]).read_text()
    lines = [line for line in named.splitlines() if line and not line.startswith("#")]
    assert len(lines) == sum(bits for _, bits in PINS.values())
    port = re.compile(r"set_property -dict \{([A-Z_]+ \w+ ?)+\} \[get_ports (\w+|\{\w+\[\d\]\})\]")
    assert [line for line in lines if not port.fullmatch(line)] == []


def test_ports_have_the_directions_of_the_bus(emitted: Path) -> None:
    ways = {name: way for way, _, name in top_ports((emitted / f"{NAME}.v").read_text())}
    slave_gives = {"awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid"}
    master_takes = {"arready", "rdata", "rresp", "rlast", "rvalid", "awready", "wready", "bresp", "bvalid"}
    for name, way in ways.items():
        side, _, signal = name.rpartition("_")
        if side:
            gives = signal in slave_gives if side == "s_axi" else signal not in master_takes
            assert way == ("output" if gives else "input"), name
    assert {name for name in ways if "axi" not in name} == {"clk", "rst", "irq", *PINS}


def test_the_wrapper_tells_vivado_its_interfaces(emitted: Path) -> None:
    wrapper = emit_wrapper((emitted / f"{NAME}.v").read_text())
    told = re.findall(
        r'X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 (\w+) (\w+)" \*\)'
        r"(?:\s*\(\* X_INTERFACE_PARAMETER[^\n]*)?\s*(?:input|output) (?:\[\d+:0\] )?(\w+)",
        wrapper,
    )
    assert all(f"{interface}_{signal.lower()}" == port for interface, signal, port in told)
    assert len(told) == sum("axi_" in name for _, _, name in top_ports((emitted / f"{NAME}.v").read_text()))
    assert "ASSOCIATED_BUSIF s_axi:m_axi, ASSOCIATED_RESET aresetn" in wrapper


def black_box(verilog: str) -> str:
    """The top module's ports without what is inside."""
    ports = top_ports(verilog)
    lines = [f"  {way} [{bits - 1}:0] {name};" for way, bits, name in ports]
    return "\n".join([f"module {NAME}({', '.join(name for _, _, name in ports)});", *lines, "endmodule", ""])


@pytest.mark.parametrize(
    ("files", "top"), [((f"{MODULE}.v",), MODULE), ((f"{single_accesses.MODULE}.v", "pynq_z2.v"), "pynq_z2")]
)
def test_what_stands_around_the_overlay_fits_its_ports(sources: Path, files: tuple[str, ...], top: str) -> None:
    pytest.importorskip("pyosys")
    (sources / "box.v").write_text(black_box((sources / f"{NAME}.v").read_text()))
    read = ["read_verilog -lib +/xilinx/cells_sim.v +/xilinx/cells_xtra.v", "read_verilog -lib box.v"]
    read += [f"read_verilog {' '.join(files)}", f"hierarchy -check -top {top}", "proc", "check -assert"]
    run_yosys(read, sources)


def test_the_reset_settles_in_flip_flops(sources: Path) -> None:
    """And not in a shift register of a look-up table, which Yosys makes of registers in a row."""
    pytest.importorskip("pyosys")
    (sources / "box.v").write_text(black_box((sources / f"{NAME}.v").read_text()))
    cells = ["read_verilog -lib +/xilinx/cells_sim.v +/xilinx/cells_xtra.v", "read_verilog -lib box.v"]
    design = f"read_verilog {single_accesses.MODULE}.v pynq_z2.v"
    synthesis = ["hierarchy -top pynq_z2", *KEEP, "synth_xilinx -family xc7 -flatten -noiopad -top pynq_z2"]
    run_yosys(
        [
            *cells,
            design,
            *synthesis,
            "select -assert-none t:SRL*",
            "select -assert-count 3 w:settles w:rst %u %ci1 t:FD* %i",
        ],
        sources,
    )


def run_command(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(path)}
    command = [sys.executable, "-m", "board.overlay.bitstream.build", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.mark.parametrize(("tool", "named"), [("vivado", "Vivado 2022.1 to 2024.1"), ("nextpnr", "nextpnr-xilinx")])
def test_without_the_tool_one_line_says_what_to_install(tmp_path: Path, tool: str, named: str) -> None:
    done = run_command(tmp_path, "--tool", tool, "--out", str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert not list(tmp_path.iterdir())


@needs_tclsh
def test_with_vivado_the_bitstream_gets_its_names(sources: Path, made: Path) -> None:
    """A `vivado` that hands its script to tclsh: the command line and the folders are those of the real one."""
    record = sources / "record.txt"
    (sources / "prelude.tcl").write_text(prelude(sources, record) + "source [lindex $argv 0]\n")
    tools = made / "tools"
    tools.mkdir()
    text = f"""#!/bin/sh
[ "$1 $2 $3 $4 $6 $8" = "-mode batch -nojournal -log -source -tclargs" ] || exit 9
script=$7
shift 8
exec {shutil.which("tclsh")} {sources}/vivado.tcl "$script" "$@"
"""
    start = "set script [lindex $argv 0]\nset argv [lrange $argv 1 end]\nsource {%s}\nsource $script\n"
    (sources / "only.tcl").write_text(prelude(sources, record))
    (sources / "vivado.tcl").write_text(start % (sources / "only.tcl"))
    (tools / "vivado").write_text(text)
    (tools / "vivado").chmod(0o755)
    done = run_command(tools, "--out", str(made))
    assert done.returncode == 0, done.stderr
    assert find_mistakes([line.split("\t") for line in record.read_text().splitlines()]) == []
    assert (made / "beltsight.bit").exists()
    about = json.loads((made / "beltsight.json").read_text())
    assert about == {"version": f"{isa.version():08x}", "tool": "vivado", "clock_mhz": 100, "registers": "0x43c00000"}
