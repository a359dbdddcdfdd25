# Pins of the PYNQ-Z2, from its base design (Xilinx/PYNQ, boards/Pynq-Z2/base/vivado/constraints/base.xdc). 3.3 V.

set_property -dict {PACKAGE_PIN R14 IOSTANDARD LVCMOS33} [get_ports {leds[0]}]
set_property -dict {PACKAGE_PIN P14 IOSTANDARD LVCMOS33} [get_ports {leds[1]}]
set_property -dict {PACKAGE_PIN N16 IOSTANDARD LVCMOS33} [get_ports {leds[2]}]
set_property -dict {PACKAGE_PIN M14 IOSTANDARD LVCMOS33} [get_ports {leds[3]}]

set_property -dict {PACKAGE_PIN D19 IOSTANDARD LVCMOS33} [get_ports {buttons[0]}]
set_property -dict {PACKAGE_PIN D20 IOSTANDARD LVCMOS33} [get_ports {buttons[1]}]
set_property -dict {PACKAGE_PIN L20 IOSTANDARD LVCMOS33} [get_ports {buttons[2]}]
set_property -dict {PACKAGE_PIN L19 IOSTANDARD LVCMOS33} [get_ports {buttons[3]}]

# PMOD A: pin 1 the light barrier, pin 2 the gate, pins 3 and 4 the encoder's A and B, pin 7 the second light barrier.
# What comes in is an open collector: pulled up.
set_property -dict {PACKAGE_PIN Y18 IOSTANDARD LVCMOS33 PULLTYPE PULLUP} [get_ports barrier]
set_property -dict {PACKAGE_PIN Y19 IOSTANDARD LVCMOS33 DRIVE 8 SLEW SLOW} [get_ports gate]
set_property -dict {PACKAGE_PIN Y16 IOSTANDARD LVCMOS33 PULLTYPE PULLUP} [get_ports {encoder[0]}]
set_property -dict {PACKAGE_PIN Y17 IOSTANDARD LVCMOS33 PULLTYPE PULLUP} [get_ports {encoder[1]}]
set_property -dict {PACKAGE_PIN U18 IOSTANDARD LVCMOS33 PULLTYPE PULLUP} [get_ports passage]
