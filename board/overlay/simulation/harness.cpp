// The Verilated overlay between a model of the processor's memory port, with latency, bandwidth and random stalls, and a
// host that reads and writes registers. The rules of both ports are looked at in every cycle.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>

#include "Vbeltsight_overlay.h"
#include "axi_rules.h"
#include "verilated.h"

namespace {

constexpr uint32_t kBase = 0x10000000;  // bus address of the buffer
constexpr uint32_t kSegment0 = 0x3C, kSize0 = 0x4C;  // registers
constexpr int kMostAnswerCycles = 200;  // of a register access
constexpr int kResetCycles = 4, kClearCycles = 40;  // until a run can be started

struct Burst {
    uint32_t address;
    int beats;
    uint64_t ready_at;
};

struct Beat {
    uint64_t data;
    unsigned bytes;  // that are written
};

struct Random {
    uint64_t state = 1;

    void seed(uint64_t value) { state = value * 0x9E3779B97F4A7C15ULL | 1; }
    uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
    bool chance(double probability) { return static_cast<double>(next() >> 11) * 0x1p-53 < probability; }
    int below(int limit) { return static_cast<int>((next() >> 11) % limit); }
};

// What the design leaves open after power-up is random.
VerilatedContext* set_up(VerilatedContext& context, int garbage) {
    context.randReset(2);
    context.randSeed(garbage);
    return &context;
}

}  // namespace

struct Simulation {
    explicit Simulation(int garbage) : top{set_up(context, garbage)} {
        top.clk = 0;
        top.s_axi_awvalid = top.s_axi_wvalid = top.s_axi_bready = top.s_axi_arvalid = top.s_axi_rready = 0;
        top.m_axi_arready = top.m_axi_rvalid = top.m_axi_awready = top.m_axi_wready = top.m_axi_bvalid = 0;
        top.barrier = top.buttons = 0;
    }

    VerilatedContext context;
    Vbeltsight_overlay top;
    uint8_t* memory = nullptr;
    uint64_t memory_bytes = 0;
    uint64_t cycle = 0;
    // settings of the memory port
    int latency = 30;
    double efficiency = 0.8;
    double stall = 0.0;
    bool shy = false;  // ready only where valid is there already, and for a write's address only where its data is too
    Random random, host_random;
    int host_patience = 0;  // the most cycles that the host waits with each part of an access
    int64_t fail_read_at = -1, fail_write_at = -1;  // the beat or burst that is answered with an error
    bool frozen = false;  // the memory does not answer any more
    // state
    std::deque<Burst> reads, writes, answers;
    std::deque<Beat> beats;  // of writes, taken
    double read_credit = 0, write_credit = 0;
    int64_t read_beats = 0, write_bursts = 0;
    bool read_offered = false;
    int outstanding_peak = 0;
    axi::MemoryRules memory_rules;
    axi::RegisterRules register_rules;
    axi::Report report;

    bool chance(double probability) { return random.chance(probability); }

    void tick() {
        // what the memory offers in this cycle was decided after the last edge; sample, then clock
        top.eval();
        const bool ar_moves = top.m_axi_arvalid && top.m_axi_arready;
        const bool r_moves = top.m_axi_rvalid && top.m_axi_rready;
        const bool aw_moves = top.m_axi_awvalid && top.m_axi_awready;
        const bool w_moves = top.m_axi_wvalid && top.m_axi_wready;
        const bool b_moves = top.m_axi_bvalid && top.m_axi_bready;
        memory_rules.look(top, report);
        register_rules.look(top, report);
        report.next_cycle();
        if (ar_moves) {
            const int beats = top.m_axi_arlen + 1;
            reads.push_back({top.m_axi_araddr, beats, cycle + latency});
            if (static_cast<int>(reads.size()) > outstanding_peak) outstanding_peak = static_cast<int>(reads.size());
        }
        if (aw_moves) {
            const int beats = top.m_axi_awlen + 1;
            writes.push_back({top.m_axi_awaddr, beats, 0});
        }
        if (r_moves) {
            Burst& burst = reads.front();
            burst.address += 8;
            if (--burst.beats == 0) reads.pop_front();
            read_offered = false;
            read_beats++;
            read_credit -= 1;
        }
        if (w_moves) {
            beats.push_back({top.m_axi_wdata, top.m_axi_wstrb});
            write_credit -= 1;
        }
        while (!writes.empty() && !beats.empty()) write_beat();
        if (b_moves) {
            answers.pop_front();
            write_bursts++;
        }
        top.clk = 1;
        top.eval();
        top.clk = 0;
        cycle++;
        offer(b_moves);
    }

    void write_beat() {
        Burst& burst = writes.front();
        const Beat beat = beats.front();
        beats.pop_front();
        for (int byte = 0; byte < 8; byte++)
            if (beat.bytes >> byte & 1) store(burst.address + byte, beat.data >> 8 * byte);
        burst.address += 8;
        if (--burst.beats == 0) {
            answers.push_back({0, 0, cycle + latency});
            writes.pop_front();
        }
    }

    bool holds(uint32_t address, int bytes) const {
        return address >= kBase && address - kBase + static_cast<uint64_t>(bytes) <= memory_bytes;
    }

    // subtle: an access outside is reported by the rules; here it must only do no harm
    void store(uint32_t address, uint64_t byte) {
        if (holds(address, 1)) memory[address - kBase] = static_cast<uint8_t>(byte);
    }

    uint64_t load(uint32_t address) const {
        uint64_t data = 0;
        if (holds(address, 8)) std::memcpy(&data, memory + (address - kBase), 8);
        return data;
    }

    void offer(bool b_moved) {
        read_credit = read_credit + efficiency > 2 ? 2 : read_credit + efficiency;
        write_credit = write_credit + efficiency > 2 ? 2 : write_credit + efficiency;
        top.m_axi_arready = !frozen && reads.size() < 8 && !chance(stall) && (!shy || top.m_axi_arvalid);
        top.m_axi_awready = !frozen && writes.size() < 8 && !chance(stall) &&
                            (!shy || (top.m_axi_awvalid && (top.m_axi_wvalid || !beats.empty())));
        top.m_axi_wready = !frozen && (shy ? top.m_axi_wvalid && beats.size() < 16 : !writes.empty()) &&
                           write_credit >= 1 && !chance(stall);
        if (!read_offered)
            read_offered = !frozen && !reads.empty() && cycle >= reads.front().ready_at && read_credit >= 1 &&
                           !chance(stall);
        top.m_axi_rvalid = read_offered;
        if (read_offered) {
            top.m_axi_rdata = load(reads.front().address);
            top.m_axi_rlast = reads.front().beats == 1;
            top.m_axi_rresp = read_beats == fail_read_at ? 2 : 0;
        }
        if (!top.m_axi_bvalid || b_moved)
            top.m_axi_bvalid = !frozen && !answers.empty() && cycle >= answers.front().ready_at && !chance(stall);
        top.m_axi_bresp = write_bursts == fail_write_at ? 2 : 0;
    }

    int host_delay() { return host_patience ? host_random.below(host_patience + 1) : 0; }

    void write_register(uint32_t offset, uint32_t value) {
        const int address_at = host_delay(), data_at = host_delay(), answer_at = host_delay();
        bool address = false, data = false, answered = false;
        for (int i = 0; !answered && i < kMostAnswerCycles; i++) {
            top.s_axi_awvalid = !address && i >= address_at;
            top.s_axi_awaddr = top.s_axi_awvalid ? offset : 0;
            top.s_axi_wvalid = !data && i >= data_at;
            top.s_axi_wdata = top.s_axi_wvalid ? value : 0;
            top.s_axi_wstrb = top.s_axi_wvalid ? 15 : 0;
            top.s_axi_bready = i >= answer_at;
            top.eval();
            address |= top.s_axi_awvalid && top.s_axi_awready;
            data |= top.s_axi_wvalid && top.s_axi_wready;
            answered = top.s_axi_bvalid && top.s_axi_bready;
            tick();
        }
        top.s_axi_awvalid = top.s_axi_wvalid = 0;
        report.broken_if(!answered, "a register write is not answered");
        report.broken_if(register_rules.owes_answers(), "a register access has not one answer");
        if (offset >= kSegment0 && offset < kSize0) memory_rules.set_base((offset - kSegment0) / 4, value);
        if (offset >= kSize0 && offset < kSize0 + 4 * axi::kSegments) memory_rules.set_size((offset - kSize0) / 4, value);
    }

    uint32_t read_register(uint32_t offset) {
        const int address_at = host_delay(), answer_at = host_delay();
        bool address = false, answered = false;
        uint32_t value = 0;
        for (int i = 0; !answered && i < kMostAnswerCycles; i++) {
            top.s_axi_arvalid = !address && i >= address_at;
            top.s_axi_araddr = top.s_axi_arvalid ? offset : 0;
            top.s_axi_rready = i >= answer_at;
            top.eval();
            address |= top.s_axi_arvalid && top.s_axi_arready;
            answered = top.s_axi_rvalid && top.s_axi_rready;
            value = top.s_axi_rdata;
            tick();
        }
        top.s_axi_arvalid = 0;
        report.broken_if(!answered, "a register read is not answered");
        report.broken_if(register_rules.owes_answers(), "a register access has not one answer");
        return value;
    }
};

extern "C" {

Simulation* overlay_open(uint8_t* memory, uint64_t bytes, int garbage) {
    auto* simulation = new Simulation(garbage);
    simulation->memory = memory;
    simulation->memory_bytes = bytes;
    simulation->top.rst = 1;
    for (int i = 0; i < kResetCycles; i++) simulation->tick();
    simulation->top.rst = 0;
    for (int i = 0; i < kClearCycles; i++) simulation->tick();
    return simulation;
}

void overlay_close(Simulation* simulation) { delete simulation; }

void overlay_set_port(Simulation* s, int latency, double efficiency, double stall, int shy, uint64_t seed) {
    s->latency = latency;
    s->efficiency = efficiency;
    s->stall = stall;
    s->shy = shy != 0;
    s->random.seed(seed);
}

void overlay_set_host(Simulation* s, int patience, uint64_t seed) {
    s->host_patience = patience;
    s->host_random.seed(seed);
}

void overlay_set_trouble(Simulation* s, int64_t fail_read_at, int64_t fail_write_at, int frozen) {
    s->fail_read_at = fail_read_at < 0 ? -1 : s->read_beats + fail_read_at;
    s->fail_write_at = fail_write_at < 0 ? -1 : s->write_bursts + fail_write_at;
    s->frozen = frozen != 0;
}

void overlay_set_pins(Simulation* s, int barrier, int buttons) {
    s->top.barrier = barrier;
    s->top.buttons = buttons;
}

int overlay_get_pins(Simulation* s) { return s->top.gate << 4 | s->top.leds; }

void overlay_write(Simulation* s, uint32_t offset, uint32_t value) { s->write_register(offset, value); }
uint32_t overlay_read(Simulation* s, uint32_t offset) { return s->read_register(offset); }

// Clocks until the interrupt is raised or a rule is broken, at most so many cycles; returns whether it is raised.
int overlay_run(Simulation* s, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles && !s->top.irq && s->report.first().empty(); i++) s->tick();
    return s->top.irq;
}

uint64_t overlay_cycle(Simulation* s) { return s->cycle; }
int overlay_outstanding(Simulation* s) { return s->outstanding_peak; }
const char* overlay_error(Simulation* s) { return s->report.first().c_str(); }
}
