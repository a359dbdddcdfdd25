"""The overlay as Vivado's block design takes it: interfaces told by attributes, the reset low and from a register.

Attributes: Xilinx UG994, "List of Supported X_ Attributes".
"""

from __future__ import annotations

import re

from board.overlay.hardware.overlay import NAME

MODULE = f"{NAME}_axi"  # the driver looks for NAME in the type of the block
_PORT = re.compile(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", re.MULTILINE)
_PARAMETERS = {
    "s_axi": "PROTOCOL AXI4LITE, DATA_WIDTH 32, ADDR_WIDTH 12, HAS_BURST 0, HAS_PROT 0",
    "m_axi": "PROTOCOL AXI4, DATA_WIDTH 64, ADDR_WIDTH 32, ID_WIDTH 0, MAX_BURST_LENGTH 16, NUM_READ_OUTSTANDING 4, "
    "NUM_WRITE_OUTSTANDING 4, SUPPORTS_NARROW_BURST 0, HAS_LOCK 0, HAS_QOS 0, HAS_REGION 0",
}


def emit_wrapper(verilog: str) -> str:
    """Verilog around the top module of `verilog`, which `emit_verilog` made."""
    ports = [(way, width, port) for way, width, port in top_ports(verilog) if port not in {"clk", "rst"}]
    first = {interface: next(p for _, _, p in ports if p.startswith(f"{interface}_")) for interface in _PARAMETERS}
    declared = [
        '(* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK" *)\n'
        '  (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axi:m_axi, ASSOCIATED_RESET aresetn" *)\n'
        "  input aclk",
        '(* X_INTERFACE_INFO = "xilinx.com:signal:reset:1.0 aresetn RST" *)\n'
        '  (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)\n'
        "  input aresetn",
    ]
    for way, width, port in ports:
        bits = f"[{width - 1}:0] " if width > 1 else ""
        declared.append(f"{_attributes(port, port in first.values())}{way} {bits}{port}")
    joined = ",\n  ".join(declared)
    connected = ",\n    ".join(f".{port}({port})" for _, _, port in ports)
    return (
        f"module {MODULE} (\n  {joined}\n);\n"
        "  reg rst = 1'b1;  // its own register: the net goes everywhere\n"
        "  always @(posedge aclk) rst <= ~aresetn;\n"
        f"  {NAME} overlay (\n    .clk(aclk),\n    .rst(rst),\n    {connected}\n  );\n"
        "endmodule\n"
    )


def top_ports(verilog: str) -> list[tuple[str, int, str]]:
    """(input or output, bits, name) of every port of the top module."""
    start = verilog.index(f"module {NAME}(")
    body = verilog[start : verilog.index("endmodule", start)]
    return [(way, int(high or 0) + 1, name) for way, high, name in _PORT.findall(body)]


def _attributes(port: str, is_first: bool) -> str:
    interface, _, signal = port.rpartition("_")
    if interface in _PARAMETERS:
        text = f'(* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 {interface} {signal.upper()}" *)\n  '
        if is_first:
            text += f'(* X_INTERFACE_PARAMETER = "XIL_INTERFACENAME {interface}, {_PARAMETERS[interface]}" *)\n  '
        return text
    if port == "irq":
        return (
            '(* X_INTERFACE_INFO = "xilinx.com:signal:interrupt:1.0 irq INTERRUPT" *)\n'
            '  (* X_INTERFACE_PARAMETER = "SENSITIVITY LEVEL_HIGH" *)\n  '
        )
    return ""
