// The rules of the AXI ports without a design: looks at rows of pins, one a cycle.
#include "axi_rules.h"

#define PINS                                                                                                  \
    X(irq)                                                                                                    \
    X(m_axi_araddr) X(m_axi_arlen) X(m_axi_arsize) X(m_axi_arburst) X(m_axi_arvalid) X(m_axi_arready)         \
    X(m_axi_rdata) X(m_axi_rresp) X(m_axi_rlast) X(m_axi_rvalid) X(m_axi_rready)                              \
    X(m_axi_awaddr) X(m_axi_awlen) X(m_axi_awsize) X(m_axi_awburst) X(m_axi_awvalid) X(m_axi_awready)         \
    X(m_axi_wdata) X(m_axi_wstrb) X(m_axi_wlast) X(m_axi_wvalid) X(m_axi_wready)                              \
    X(m_axi_bresp) X(m_axi_bvalid) X(m_axi_bready)                                                            \
    X(s_axi_awaddr) X(s_axi_awvalid) X(s_axi_awready)                                                         \
    X(s_axi_wdata) X(s_axi_wstrb) X(s_axi_wvalid) X(s_axi_wready)                                             \
    X(s_axi_bresp) X(s_axi_bvalid) X(s_axi_bready)                                                            \
    X(s_axi_araddr) X(s_axi_arvalid) X(s_axi_arready)                                                         \
    X(s_axi_rdata) X(s_axi_rresp) X(s_axi_rvalid) X(s_axi_rready)

struct Pins {
#define X(name) uint64_t name;
    PINS
#undef X
};

extern "C" {

const char* rules_pins() {
#define X(name) #name " "
    return PINS;
#undef X
}

// The first broken rule, or nothing. Segment 0 has 4096 bytes from 0x1000 on.
const char* rules_look(const Pins* rows, int cycles) {
    static std::string first;
    axi::MemoryRules memory;
    axi::RegisterRules registers;
    axi::Report report;
    memory.set_base(0, 0x1000);
    memory.set_size(0, 0x1000);
    for (int i = 0; i < cycles; i++) {
        memory.look(rows[i], report);
        registers.look(rows[i], report);
        report.next_cycle();
    }
    first = report.first();
    return first.c_str();
}
}
