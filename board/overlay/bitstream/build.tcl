# vivado -mode batch -source build.tcl -tclargs SOURCES OUT CLOCK_MHZ REGISTER_ADDRESS JOBS
# SOURCES holds what beltsight overlay emitted; OUT receives beltsight.bit, beltsight.hwh and the reports.

lassign $argv sources out clock_mhz register_address jobs
set name beltsight
set version [version -short]
if {[package vcompare [regexp -inline {^\d+\.\d+} $version] 2022.1] < 0} {
    puts stderr "beltsight: Vivado $version is older than 2022.1, with which the board's image was made: install 2022.1 to 2024.1"
    exit 2
}
source [file join $sources processing_system.tcl]
source [file join $sources block_design.tcl]

create_project -force -part xc7z020clg400-1 $name [file join $out vivado]
add_files -norecurse [list [file join $sources beltsight_overlay.v] [file join $sources beltsight_overlay_axi.v]]
add_files -fileset constrs_1 -norecurse [list [file join $sources pynq_z2.xdc] [file join $sources timing.xdc]]
update_compile_order -fileset sources_1
beltsight_block_design $name $clock_mhz $register_address
set design [get_files $name.bd]
add_files -norecurse [make_wrapper -files $design -top]
set_property top ${name}_wrapper [current_fileset]
update_compile_order -fileset sources_1
# the BRAMs' and DSPs' registers are written as plain registers: let them move in; high fan-outs are enables and resets
set_property strategy Performance_Explore [get_runs impl_1]

launch_runs impl_1 -to_step write_bitstream -jobs $jobs
wait_on_run impl_1
if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} {
    puts stderr "beltsight: Vivado failed in [get_property STATUS [get_runs impl_1]]: see [file join $out vivado]"
    exit 1
}
open_run impl_1
report_utilization -file [file join $out vivado_utilization.txt]
report_timing_summary -file [file join $out vivado_timing.txt]
set slack [get_property SLACK [get_timing_paths -max_paths 1]]
if {$slack < 0} {
    puts stderr "beltsight: $clock_mhz MHz is missed by [expr {-$slack}] ns: see [file join $out vivado_timing.txt], or ask for a slower --clock-mhz"
    exit 1
}
set hold [get_property SLACK [get_timing_paths -hold -max_paths 1]]
if {$hold < 0} {
    puts stderr "beltsight: a register takes its new value [expr {-$hold}] ns early, at any clock: see [file join $out vivado_timing.txt]"
    exit 1
}
set runs [file join $out vivado $name.runs impl_1 ${name}_wrapper.bit]
set handoff [file join $out vivado $name.gen sources_1 bd $name hw_handoff $name.hwh]
file copy -force $runs [file join $out $name.bit]
file copy -force $handoff [file join $out $name.hwh]
puts "beltsight: [file join $out $name.bit], slack $slack ns"
