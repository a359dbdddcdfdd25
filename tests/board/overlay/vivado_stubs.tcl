# Vivado's commands as far as the overlay's scripts use them. They refuse what Vivado would refuse, and write what was
# asked for to the channel `record`, one tab-separated line each.
# Before: ::record (channel), ::module_pins, ::module_interfaces (of the module reference), ::project_ports (of the XDC).

proc say {args} { puts $::record [join $args \t] }

# options: dict from option to 1 (takes a value) or 0; returns {dict of options, positional arguments}
proc parse {command options arguments} {
    set given [dict create]
    set rest {}
    while {[llength $arguments]} {
        set arguments [lassign $arguments word]
        if {[regexp {^-[a-z]} $word]} {
            if {![dict exists $options $word]} { error "$command: no option $word" }
            if {[dict exists $given $word]} { error "$command: $word twice" }
            set value 1
            if {[dict get $options $word]} {
                if {![llength $arguments]} { error "$command: $word wants a value" }
                set arguments [lassign $arguments value]
            }
            dict set given $word $value
        } else {
            lappend rest $word
        }
    }
    return [list $given $rest]
}

proc require {command given args} {
    foreach option $args { if {![dict exists $given $option]} { error "$command: $option is missing" } }
}

# --- block design

set ::cells [dict create]      ;# name -> vlnv
set ::settings [dict create]   ;# cell -> dict
set ::joined [dict create]     ;# pin -> net
set ::ports [dict create]      ;# name -> direction
set ::interfaces {}            ;# external
set ::design ""

set ::catalogue {
    xilinx.com:ip:processing_system7:5.5 xilinx.com:ip:proc_sys_reset:5.0 xilinx.com:ip:axi_protocol_converter:2.1
}

proc create_bd_design {name} { set ::design $name; say design $name }

proc create_bd_cell {args} {
    lassign [parse create_bd_cell {-type 1 -vlnv 1 -reference 1} $args] given rest
    require create_bd_cell $given -type
    if {[llength $rest] != 1} { error "create_bd_cell: one name" }
    if {$::design eq ""} { error "create_bd_cell: no design" }
    switch [dict get $given -type] {
        ip {
            require create_bd_cell $given -vlnv
            set kind [dict get $given -vlnv]
            if {$kind ni $::catalogue} { error "create_bd_cell: no IP $kind" }
        }
        module {
            require create_bd_cell $given -reference
            set kind [dict get $given -reference]
            if {$kind ne $::module_name} { error "create_bd_cell: no module $kind" }
        }
        default { error "create_bd_cell: type [dict get $given -type]" }
    }
    if {[dict exists $::cells $rest]} { error "create_bd_cell: $rest exists" }
    dict set ::cells $rest $kind
    dict set ::settings $rest [dict create]
    say cell $rest $kind
    return $rest
}

proc on {cell key} {
    set all [dict get $::settings $cell]
    expr {[dict exists $all CONFIG.$key] && [dict get $all CONFIG.$key]}
}

proc pins {cell} {
    set kind [dict get $::cells $cell]
    switch -glob $kind {
        *processing_system7* {
            set pins {}
            if {[on $cell PCW_EN_CLK0_PORT]} { lappend pins FCLK_CLK0 }
            if {[on $cell PCW_EN_RST0_PORT]} { lappend pins FCLK_RESET0_N }
            if {[on $cell PCW_USE_M_AXI_GP0]} { lappend pins M_AXI_GP0_ACLK }
            if {[on $cell PCW_USE_S_AXI_HP0]} { lappend pins S_AXI_HP0_ACLK }
            if {[on $cell PCW_USE_FABRIC_INTERRUPT] && [on $cell PCW_IRQ_F2P_INTR]} { lappend pins IRQ_F2P }
            return $pins
        }
        *proc_sys_reset* {
            return {slowest_sync_clk ext_reset_in aux_reset_in mb_debug_sys_rst dcm_locked mb_reset bus_struct_reset \
                peripheral_reset interconnect_aresetn peripheral_aresetn}
        }
        *axi_protocol_converter* { return {aclk aresetn} }
        default { return $::module_pins }
    }
}

proc interface_pins {cell} {
    switch -glob [dict get $::cells $cell] {
        *processing_system7* {
            set pins {DDR master FIXED_IO master}
            if {[on $cell PCW_USE_M_AXI_GP0]} { lappend pins M_AXI_GP0 master }
            if {[on $cell PCW_USE_S_AXI_HP0]} { lappend pins S_AXI_HP0 slave }
            return $pins
        }
        *proc_sys_reset* { return {} }
        *axi_protocol_converter* { return {S_AXI slave M_AXI master} }
        default { return $::module_interfaces }
    }
}

proc get_bd_cells {name} {
    if {![dict exists $::cells $name]} { error "get_bd_cells: no cell $name" }
    return $name
}
proc get_bd_pins {path} {
    lassign [split $path /] cell pin
    if {![dict exists $::cells $cell] || $pin ni [pins $cell]} { error "get_bd_pins: no pin $path" }
    return $path
}
proc get_bd_intf_pins {path} {
    lassign [split $path /] cell pin
    if {![dict exists $::cells $cell] || ![dict exists [interface_pins $cell] $pin]} {
        error "get_bd_intf_pins: no interface $path"
    }
    return $path
}
proc create_bd_port {args} {
    lassign [parse create_bd_port {-dir 1 -from 1 -to 1 -type 1} $args] given name
    require create_bd_port $given -dir
    if {[dict get $given -dir] ni {I O IO}} { error "create_bd_port: direction" }
    set bits 1
    if {[dict exists $given -from]} { set bits [expr {[dict get $given -from] - [dict get $given -to] + 1}] }
    dict set ::ports $name [dict get $given -dir]
    say port $name [dict get $given -dir] $bits
    return $name
}
proc create_bd_intf_port {args} {
    lassign [parse create_bd_intf_port {-mode 1 -vlnv 1} $args] given name
    require create_bd_intf_port $given -mode -vlnv
    lappend ::interfaces $name
    return $name
}
proc get_bd_ports {name} {
    if {![dict exists $::ports $name]} { error "get_bd_ports: no port $name" }
    return $name
}
proc get_bd_intf_ports {name} {
    if {$name ni $::interfaces} { error "get_bd_intf_ports: no port $name" }
    return $name
}
proc join_pins {command pins} {
    if {[llength $pins] < 2} { error "$command: at least two ends" }
    foreach pin $pins {
        if {[dict exists $::joined $pin]} { error "$command: $pin is connected already" }
        dict set ::joined $pin 1
    }
}
proc connect_bd_net {args} {
    lassign [parse connect_bd_net {-net 1} $args] _ pins
    join_pins connect_bd_net $pins
    say net {*}$pins
}
proc connect_bd_intf_net {args} {
    lassign [parse connect_bd_intf_net {-intf_net 1} $args] _ pins
    if {[llength $pins] != 2} { error "connect_bd_intf_net: two ends" }
    join_pins connect_bd_intf_net $pins
    set roles {}
    foreach pin $pins {
        lassign [split $pin /] cell name
        if {$name ne ""} { lappend roles [dict get [interface_pins $cell] $name] }
    }
    if {[llength $roles] == 2 && [lindex $roles 0] eq [lindex $roles 1]} { error "connect_bd_intf_net: two [lindex $roles 0]s" }
    say interface {*}$pins
}
proc get_bd_addr_spaces {path} {
    if {$path ni {ps7/Data overlay/m_axi}} { error "get_bd_addr_spaces: no space $path" }
    return $path
}
proc get_bd_addr_segs {path} {
    if {$path ni {overlay/s_axi/reg0 ps7/S_AXI_HP0/HP0_DDR_LOWOCM}} { error "get_bd_addr_segs: no segment $path" }
    return $path
}
proc assign_bd_address {args} {
    lassign [parse assign_bd_address {-offset 1 -range 1 -force 0 -target_address_space 1} $args] given segment
    require assign_bd_address $given -offset -range -target_address_space
    say address [dict get $given -target_address_space] $segment [expr {[dict get $given -offset]}] [dict get $given -range]
}
proc validate_bd_design {} { say validated }
proc save_bd_design {} {}

# --- project

proc version {option} { return $::vivado_version }
proc create_project {args} {
    lassign [parse create_project {-force 0 -part 1} $args] given rest
    require create_project $given -part
    if {[llength $rest] != 2} { error "create_project: name and folder" }
    say project [dict get $given -part]
}
proc add_files {args} {
    lassign [parse add_files {-norecurse 0 -fileset 1} $args] given files
    foreach file [lindex $files 0] {
        if {$file ne "wrapper.v" && ![file exists $file]} { error "add_files: no file $file" }
    }
}
proc update_compile_order {args} { parse update_compile_order {-fileset 1} $args }
proc get_files {name} { return $name }
proc make_wrapper {args} {
    lassign [parse make_wrapper {-files 1 -top 0} $args] given _
    require make_wrapper $given -files -top
    return wrapper.v
}
proc current_fileset {} { return sources_1 }
proc get_runs {name} { if {$name ni {synth_1 impl_1}} { error "get_runs: $name" }; return $name }
proc launch_runs {args} {
    lassign [parse launch_runs {-to_step 1 -jobs 1} $args] given run
    if {[dict get $given -to_step] ne "write_bitstream"} { error "launch_runs: no step [dict get $given -to_step]" }
    say launched $run
}
proc wait_on_run {run} {}
proc open_run {run} {}
proc get_timing_paths {args} {
    lassign [parse get_timing_paths {-max_paths 1 -hold 0} $args] given
    return [expr {[dict exists $given -hold] ? "hold_path" : "path"}]
}
proc get_property {key object} {
    switch $key {
        PROGRESS { return $::run_progress }
        STATUS { return "write_bitstream Complete!" }
        SLACK { return [expr {$object eq "hold_path" ? $::hold_slack : $::slack}] }
        default { error "get_property: $key" }
    }
}
proc report_utilization {args} { parse report_utilization {-file 1} $args }
proc report_timing_summary {args} { parse report_timing_summary {-file 1} $args }

proc set_property {args} {
    lassign [parse set_property {-dict 1} $args] given rest
    if {[dict exists $given -dict]} {
        set values [dict get $given -dict]
        set objects [lindex $rest 0]
    } else {
        lassign $rest key value objects
        set values [dict create $key $value]
    }
    if {[llength $values] % 2} { error "set_property: a key without its value" }
    if {![llength $objects]} { error "set_property: of nothing" }
    dict for {key value} $values {
        foreach object $objects {
            if {[dict exists $::cells $object]} {
                if {![string match CONFIG.* $key]} { error "set_property: $key of a cell" }
                if {[dict exists $::settings $object $key]} { error "set_property: $key twice" }
                dict set ::settings $object $key $value
            }
            say property $object $key $value
        }
    }
}

# --- constraints

proc get_ports {patterns} {
    set found {}
    foreach pattern $patterns {
        # brackets are part of a name here, not a set of characters
        set glob [string map {\[ \\\[ \] \\\]} $pattern]
        set matches [lsearch -all -inline -glob $::project_ports $glob]
        if {![llength $matches]} { error "get_ports: no port $pattern" }
        lappend found {*}$matches
    }
    return $found
}
proc set_false_path {args} {
    lassign [parse set_false_path {-from 1 -to 1} $args] given _
    dict for {option ports} $given { foreach port $ports { say false_path $option $port } }
}
proc get_cells {args} {
    lassign [parse get_cells {-hierarchical 0 -regexp 0} $args] _ pattern
    set found [lsearch -all -inline -regexp $::project_cells ^[lindex $pattern 0]$]
    if {![llength $found]} { error "get_cells: nothing like [lindex $pattern 0]" }
    return $found
}
