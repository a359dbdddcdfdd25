// The Verilated overlay with a model of the processor's memory port: latency, bandwidth, random stalls, protocol checks.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>

#include "Vbeltsight_overlay.h"
#include "verilated.h"

namespace {

constexpr uint32_t kBase = 0x10000000;  // bus address of the buffer

struct Burst {
    uint32_t address;
    int beats;
    uint64_t ready_at;
};

struct Channel {  // a valid/ready pair whose payload must not change while it waits
    bool waiting = false;
    uint64_t payload = 0;
};

}  // namespace

struct Simulation {
    VerilatedContext context;
    Vbeltsight_overlay top{&context};
    uint8_t* memory = nullptr;
    uint64_t memory_bytes = 0;
    uint64_t cycle = 0;
    // settings of the memory port
    int latency = 30;
    double efficiency = 0.8;
    double stall = 0.0;
    uint64_t random = 1;
    int64_t fail_read_at = -1, fail_write_at = -1;  // the beat or burst that is answered with an error
    bool frozen = false;  // the memory does not answer any more
    // state
    std::deque<Burst> reads, writes, answers;
    double read_credit = 0, write_credit = 0;
    int64_t read_beats = 0, write_bursts = 0;
    bool read_offered = false;
    int outstanding_peak = 0;
    Channel aw, ar, w;
    std::string error;

    bool chance(double probability) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return static_cast<double>(random >> 11) * 0x1p-53 < probability;
    }

    void fail(const char* text) {
        if (error.empty()) error = "cycle " + std::to_string(cycle) + ": " + text;
    }

    void check_stable(Channel& channel, bool valid, bool ready, uint64_t payload, const char* text) {
        if (channel.waiting && (!valid || channel.payload != payload)) fail(text);
        channel.waiting = valid && !ready;
        channel.payload = payload;
    }

    void check_burst(uint32_t address, int beats, const char* text) {
        if (beats > 16 || address % 8 != 0 || address / 4096 != (address + 8 * beats - 1) / 4096) fail(text);
        if (address < kBase || address - kBase + 8ULL * beats > memory_bytes) fail("access outside the buffer");
    }

    void tick() {
        // what the memory offers in this cycle was decided after the last edge; sample, then clock
        top.eval();
        const bool ar_moves = top.m_axi_arvalid && top.m_axi_arready;
        const bool r_moves = top.m_axi_rvalid && top.m_axi_rready;
        const bool aw_moves = top.m_axi_awvalid && top.m_axi_awready;
        const bool w_moves = top.m_axi_wvalid && top.m_axi_wready;
        const bool b_moves = top.m_axi_bvalid && top.m_axi_bready;
        check_stable(ar, top.m_axi_arvalid, top.m_axi_arready, (uint64_t(top.m_axi_araddr) << 8) | top.m_axi_arlen,
                     "a read address changed before it was taken");
        check_stable(aw, top.m_axi_awvalid, top.m_axi_awready, (uint64_t(top.m_axi_awaddr) << 8) | top.m_axi_awlen,
                     "a write address changed before it was taken");
        check_stable(w, top.m_axi_wvalid, top.m_axi_wready, top.m_axi_wdata, "write data changed before it was taken");
        if (ar_moves) {
            const int beats = top.m_axi_arlen + 1;
            check_burst(top.m_axi_araddr, beats, "a read burst is too long, crooked or crosses 4 KiB");
            reads.push_back({top.m_axi_araddr, beats, cycle + latency});
            if (static_cast<int>(reads.size()) > outstanding_peak) outstanding_peak = static_cast<int>(reads.size());
        }
        if (aw_moves) {
            const int beats = top.m_axi_awlen + 1;
            check_burst(top.m_axi_awaddr, beats, "a write burst is too long, crooked or crosses 4 KiB");
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
            if (writes.empty()) {
                fail("write data before its address");
            } else {
                Burst& burst = writes.front();
                const uint64_t data = top.m_axi_wdata;
                for (int byte = 0; byte < 8; byte++)
                    if (top.m_axi_wstrb >> byte & 1) memory[burst.address - kBase + byte] = data >> 8 * byte;
                burst.address += 8;
                if (bool(top.m_axi_wlast) != (burst.beats == 1)) fail("the last beat of a write is marked wrongly");
                if (--burst.beats == 0) {
                    answers.push_back({0, 0, cycle + latency});
                    writes.pop_front();
                }
            }
            write_credit -= 1;
        }
        if (b_moves) {
            answers.pop_front();
            write_bursts++;
        }
        top.clk = 1;
        top.eval();
        top.clk = 0;
        cycle++;
        offer(r_moves, b_moves);
    }

    void offer(bool r_moved, bool b_moved) {
        read_credit = read_credit + efficiency > 2 ? 2 : read_credit + efficiency;
        write_credit = write_credit + efficiency > 2 ? 2 : write_credit + efficiency;
        top.m_axi_arready = !frozen && reads.size() < 8 && !chance(stall);
        top.m_axi_awready = !frozen && writes.size() < 8 && !chance(stall);
        // subtle: W may be ready only where its burst is known, or data would have nowhere to go
        top.m_axi_wready = !frozen && !writes.empty() && write_credit >= 1 && !chance(stall);
        if (!read_offered)
            read_offered = !frozen && !reads.empty() && cycle >= reads.front().ready_at && read_credit >= 1 &&
                           !chance(stall);
        top.m_axi_rvalid = read_offered;
        if (read_offered) {
            uint64_t data;
            std::memcpy(&data, memory + (reads.front().address - kBase), 8);
            top.m_axi_rdata = data;
            top.m_axi_rlast = reads.front().beats == 1;
            top.m_axi_rresp = read_beats == fail_read_at ? 2 : 0;
        }
        if (!top.m_axi_bvalid || b_moved)
            top.m_axi_bvalid = !frozen && !answers.empty() && cycle >= answers.front().ready_at && !chance(stall);
        top.m_axi_bresp = write_bursts == fail_write_at ? 2 : 0;
        (void)r_moved;
    }

    void write_register(uint32_t offset, uint32_t value) {
        top.s_axi_awaddr = offset;
        top.s_axi_wdata = value;
        top.s_axi_wstrb = 15;
        top.s_axi_awvalid = top.s_axi_wvalid = 1;
        top.s_axi_bready = 1;
        bool address = false, data = false, answered = false;
        for (int guard = 0; !answered && guard < 100; guard++) {
            top.eval();
            address |= top.s_axi_awvalid && top.s_axi_awready;
            data |= top.s_axi_wvalid && top.s_axi_wready;
            answered = top.s_axi_bvalid;
            tick();
            if (address) top.s_axi_awvalid = 0;
            if (data) top.s_axi_wvalid = 0;
        }
        if (!answered) fail("a register write was not answered");
    }

    uint32_t read_register(uint32_t offset) {
        top.s_axi_araddr = offset;
        top.s_axi_arvalid = 1;
        top.s_axi_rready = 1;
        for (int guard = 0; guard < 100; guard++) {
            top.eval();
            const bool taken = top.s_axi_arvalid && top.s_axi_arready;
            const bool answered = top.s_axi_rvalid;
            const uint32_t value = top.s_axi_rdata;
            tick();
            if (taken) top.s_axi_arvalid = 0;
            if (answered) return value;
        }
        fail("a register read was not answered");
        return 0;
    }
};

extern "C" {

Simulation* overlay_open(uint8_t* memory, uint64_t bytes) {
    auto* simulation = new Simulation;
    simulation->memory = memory;
    simulation->memory_bytes = bytes;
    simulation->top.rst = 1;
    simulation->tick();
    simulation->top.rst = 0;
    simulation->tick();
    return simulation;
}

void overlay_close(Simulation* simulation) { delete simulation; }

void overlay_set_port(Simulation* s, int latency, double efficiency, double stall, uint64_t seed) {
    s->latency = latency;
    s->efficiency = efficiency;
    s->stall = stall;
    s->random = seed * 0x9E3779B97F4A7C15ULL | 1;
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

// Clocks until the interrupt is raised, at most so many cycles; returns whether it is.
int overlay_run(Simulation* s, uint64_t cycles) {
    for (uint64_t i = 0; i < cycles && !s->top.irq; i++) s->tick();
    return s->top.irq;
}

uint64_t overlay_cycle(Simulation* s) { return s->cycle; }
int overlay_outstanding(Simulation* s) { return s->outstanding_peak; }
const char* overlay_error(Simulation* s) { return s->error.c_str(); }
}
