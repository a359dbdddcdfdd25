// The Verilated timer of the line alone, behind its own AXI4-Lite slave, whose rules are looked at in every cycle.
#include <cstdint>
#include <string>
#include <vector>

#include "Vbeltsight_timer.h"
#include "axi_rules.h"
#include "verilated.h"

namespace {

constexpr int kMostAnswerCycles = 200;  // of a register access

struct Move {
    uint64_t cycle;
    uint64_t open;
};

// What the design leaves open after power-up is random.
VerilatedContext* set_up(VerilatedContext& context, int garbage) {
    context.randReset(2);
    context.randSeed(garbage);
    return &context;
}

}  // namespace

struct Timer {
    explicit Timer(int garbage) : top{set_up(context, garbage)} {
        top.clk = top.barrier = top.passage = top.encoder = top.buttons = 0;
        top.s_axi_awvalid = top.s_axi_wvalid = top.s_axi_bready = top.s_axi_arvalid = top.s_axi_rready = 0;
        reset(1);
    }

    VerilatedContext context;
    Vbeltsight_timer top;
    uint64_t cycle = 0;  // since the last reset
    unsigned turn = 0;   // of the encoder, in counts
    std::vector<Move> moves;
    axi::RegisterRules rules;
    axi::Report report;

    void reset(int cycles) {
        top.rst = 1;
        for (int i = 0; i < cycles; i++) tick();
        top.rst = 0;
        cycle = 0;
    }

    void tick() {
        top.eval();
        rules.look(top, report);
        report.next_cycle();
        const bool was_open = top.gate;
        top.clk = 1;
        top.eval();
        top.clk = 0;
        cycle++;
        if (was_open != static_cast<bool>(top.gate)) moves.push_back({cycle, top.gate});
    }

    void move_belt(int counts, int cycles_each) {
        constexpr uint8_t kLevels[] = {0, 1, 3, 2};  // bit 0 is A, bit 1 is B: A leads
        for (; counts != 0; counts -= counts > 0 ? 1 : -1) {
            turn += counts > 0 ? 1 : 3;
            top.encoder = kLevels[turn % 4];
            for (int i = 0; i < cycles_each; i++) tick();
        }
    }

    void write(uint32_t offset, uint32_t value) {
        bool address = false, data = false, answered = false;
        top.s_axi_bready = 1;
        for (int i = 0; !answered && i < kMostAnswerCycles; i++) {
            top.s_axi_awvalid = !address;
            top.s_axi_awaddr = offset;
            top.s_axi_wvalid = !data;
            top.s_axi_wdata = value;
            top.s_axi_wstrb = 15;
            top.eval();
            address |= top.s_axi_awvalid && top.s_axi_awready;
            data |= top.s_axi_wvalid && top.s_axi_wready;
            answered = top.s_axi_bvalid && top.s_axi_bready;
            tick();
        }
        top.s_axi_awvalid = top.s_axi_wvalid = 0;
        finish(answered);
    }

    uint32_t read(uint32_t offset) {
        bool address = false, answered = false;
        uint32_t value = 0;
        top.s_axi_rready = 1;
        for (int i = 0; !answered && i < kMostAnswerCycles; i++) {
            top.s_axi_arvalid = !address;
            top.s_axi_araddr = offset;
            top.eval();
            address |= top.s_axi_arvalid && top.s_axi_arready;
            answered = top.s_axi_rvalid && top.s_axi_rready;
            value = top.s_axi_rdata;
            tick();
        }
        top.s_axi_arvalid = 0;
        finish(answered);
        return value;
    }

    void finish(bool answered) {
        report.broken_if(!answered, "a register access is not answered");
        report.broken_if(rules.owes_answers(), "a register access has not one answer");
    }
};

extern "C" {

Timer* timer_open(int garbage) { return new Timer(garbage); }
void timer_close(Timer* timer) { delete timer; }
void timer_reset(Timer* timer, int cycles) { timer->reset(cycles); }
void timer_write(Timer* timer, uint32_t offset, uint32_t value) { timer->write(offset, value); }
uint32_t timer_read(Timer* timer, uint32_t offset) { return timer->read(offset); }
void timer_run(Timer* timer, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles; i++) timer->tick();
}
void timer_move_belt(Timer* timer, int counts, int cycles_each) { timer->move_belt(counts, cycles_each); }
void timer_set_pins(Timer* timer, int barrier, int passage, int buttons) {
    timer->top.barrier = barrier;
    timer->top.passage = passage;
    timer->top.buttons = buttons;
}
int timer_get_pins(Timer* timer) { return timer->top.gate << 4 | timer->top.leds; }
uint64_t timer_cycle(Timer* timer) { return timer->cycle; }
uint64_t timer_moves(Timer* timer) { return timer->moves.size(); }
const Move* timer_move(Timer* timer, uint64_t number) { return &timer->moves.at(number); }
const char* timer_error(Timer* timer) { return timer->report.first().c_str(); }
}
