# For Vivado alone: the open router takes constraints of pins and no others.
# The clock of the logic comes with the processing system. The pins know no clock: inputs go through two registers first.
set_false_path -from [get_ports {buttons[*] barrier passage encoder[*]}]
set_false_path -to [get_ports {leds[*] gate}]
set_property ASYNC_REG TRUE [get_cells -hierarchical -regexp {.*/sync_(buttons|barrier|passage|encoder)/stage[01]_reg.*}]
