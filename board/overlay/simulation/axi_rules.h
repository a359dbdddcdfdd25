// The rules of the overlay's two AXI ports, looked at in every cycle, for the overlay and for what stands around it.
//
// `Pins` is the Verilated overlay, or anything with members of the same names. The first rule that is broken is kept as
// one line.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>

namespace axi {

constexpr int kMostBeats = 16;      // AXI3
constexpr int kBoundaryBytes = 128; // no burst crosses a multiple of it
constexpr int kBeatBytes = 8;
constexpr int kMostBursts = 4;      // under way at once, in each direction
constexpr int kMostAloneCycles = 4; // of a write's address, before its data is offered too
constexpr int kSegments = 4;

class Report {
  public:
    void next_cycle() { cycle_++; }
    void broken_if(bool broken, const char* rule) {
        if (broken && first_.empty()) first_ = "cycle " + std::to_string(cycle_) + ": " + rule;
    }
    const std::string& first() const { return first_; }

  private:
    uint64_t cycle_ = 0;
    std::string first_;
};

// What is offered stays as it is until it is taken.
class Offer {
  public:
    bool changed(bool valid, bool ready, std::array<uint64_t, 3> payload) {
        const bool changed = waiting_ && (!valid || payload != payload_);
        waiting_ = valid && !ready;
        payload_ = payload;
        return changed;
    }

  private:
    bool waiting_ = false;
    std::array<uint64_t, 3> payload_{};
};

// The port to the memory: AXI4 with what ARCHITECTURE.md promises beyond it.
class MemoryRules {
  public:
    void set_base(int segment, uint32_t address) { base_.at(segment) = address; }
    void set_size(int segment, uint32_t bytes) { size_.at(segment) = bytes; }

    template <class Pins> void look(const Pins& p, Report& report) {
        look_at_offers(p, report);
        if (p.m_axi_arvalid && p.m_axi_arready) {
            look_at_burst({p.m_axi_araddr, p.m_axi_arlen + 1ULL}, p.m_axi_arsize, p.m_axi_arburst, report);
            reads_.push_back(static_cast<int>(p.m_axi_arlen) + 1);
            report.broken_if(reads_.size() > kMostBursts, "more than 4 read bursts are under way");
        }
        if (p.m_axi_awvalid && p.m_axi_awready) {
            look_at_burst({p.m_axi_awaddr, p.m_axi_awlen + 1ULL}, p.m_axi_awsize, p.m_axi_awburst, report);
            writes_.push_back(static_cast<int>(p.m_axi_awlen) + 1 - early_);
            early_ = 0;
            unanswered_++;
            report.broken_if(unanswered_ > kMostBursts, "more than 4 write bursts are under way");
        }
        look_at_reads(p, report);
        look_at_writes(p, report);
        look_at_answers(p, report);
        const bool at_work = !reads_.empty() || unanswered_ || p.m_axi_arvalid || p.m_axi_awvalid;
        report.broken_if(p.irq && at_work, "the interrupt is raised while a burst is under way");
    }

  private:
    struct Burst {
        uint64_t address, beats;
    };

    template <class Pins> void look_at_offers(const Pins& p, Report& report) {
        const uint64_t ar = p.m_axi_arlen << 8 | p.m_axi_arsize << 4 | p.m_axi_arburst;
        const uint64_t aw = p.m_axi_awlen << 8 | p.m_axi_awsize << 4 | p.m_axi_awburst;
        report.broken_if(ar_.changed(p.m_axi_arvalid, p.m_axi_arready, {p.m_axi_araddr, ar}),
                         "a read address changed before it was taken");
        report.broken_if(aw_.changed(p.m_axi_awvalid, p.m_axi_awready, {p.m_axi_awaddr, aw}),
                         "a write address changed before it was taken");
        report.broken_if(w_.changed(p.m_axi_wvalid, p.m_axi_wready, {p.m_axi_wdata, p.m_axi_wstrb, p.m_axi_wlast}),
                         "write data changed before it was taken");
        report.broken_if(r_.changed(p.m_axi_rvalid, p.m_axi_rready, {p.m_axi_rdata, p.m_axi_rresp, p.m_axi_rlast}),
                         "the memory changed read data before it was taken");
        report.broken_if(b_.changed(p.m_axi_bvalid, p.m_axi_bready, {p.m_axi_bresp}),
                         "the memory changed an answer before it was taken");
    }

    void look_at_burst(Burst burst, uint64_t size, uint64_t kind, Report& report) {
        const uint64_t end = burst.address + kBeatBytes * burst.beats;
        report.broken_if(burst.beats > kMostBeats, "a burst is longer than 16 beats");
        report.broken_if(size != 3 || kind != 1, "a burst is not of rising beats of 8 bytes");
        report.broken_if(burst.address % kBeatBytes != 0, "a burst does not begin at a multiple of 8 bytes");
        report.broken_if(burst.address / kBoundaryBytes != (end - 1) / kBoundaryBytes,
                         "a burst crosses a multiple of 128 bytes");
        bool inside = false;
        for (int i = 0; i < kSegments; i++)
            inside |= burst.address >= base_[i] && end <= static_cast<uint64_t>(base_[i]) + size_[i];
        report.broken_if(!inside, "a burst lies outside the segments");
    }

    template <class Pins> void look_at_reads(const Pins& p, Report& report) {
        if (!p.m_axi_rvalid) return;
        report.broken_if(!p.m_axi_rready, "read data had to wait, though a burst is asked for only when there is room");
        report.broken_if(reads_.empty(), "the memory sends what nobody has asked for");
        if (!p.m_axi_rready || reads_.empty()) return;
        report.broken_if(p.m_axi_rlast != (reads_.front() == 1), "the memory marks the last beat of a read wrongly");
        if (--reads_.front() == 0) reads_.pop_front();
    }

    template <class Pins> void look_at_writes(const Pins& p, Report& report) {
        const bool is_alone = p.m_axi_awvalid && !p.m_axi_awready && writes_.empty() && !early_ && !p.m_axi_wvalid;
        alone_ = is_alone ? alone_ + 1 : 0;
        report.broken_if(alone_ > kMostAloneCycles, "the data of a write waits until its address is taken");
        const bool keeps_waiting = p.m_axi_wready && !p.m_axi_wvalid && !writes_.empty() && !just_asked(p);
        report.broken_if(keeps_waiting, "the memory had to wait for the data of a write");
        const bool moves = p.m_axi_wvalid && p.m_axi_wready;
        if (moves) report.broken_if(p.m_axi_wstrb != 0xFF, "a beat is not written whole");
        if (moves && writes_.empty()) {
            look_at_early(p, report);
        } else if (moves) {
            report.broken_if(p.m_axi_wlast != (writes_.front() == 1), "the last beat of a write is marked wrongly");
            writes_.front()--;
        }
        while (!writes_.empty() && writes_.front() == 0) {
            writes_.pop_front();
            answerable_++;
        }
    }

    // data may be taken before its address, which must be offered by then
    template <class Pins> void look_at_early(const Pins& p, Report& report) {
        const int beats = static_cast<int>(p.m_axi_awlen) + 1;
        early_++;
        report.broken_if(!p.m_axi_awvalid || early_ > beats, "write data without its address");
        report.broken_if(p.m_axi_wlast != (early_ == beats), "the last beat of a write is marked wrongly");
    }

    // the data of a burst may begin in the cycle after its address
    template <class Pins> bool just_asked(const Pins& p) const {
        return p.m_axi_awvalid && p.m_axi_awready && writes_.size() == 1;
    }

    template <class Pins> void look_at_answers(const Pins& p, Report& report) {
        if (!p.m_axi_bvalid) return;
        report.broken_if(!p.m_axi_bready, "an answer to a write had to wait");
        report.broken_if(answerable_ == 0, "the memory answers a write that is not over");
        if (!p.m_axi_bready || answerable_ == 0) return;
        answerable_--;
        unanswered_--;
    }

    std::array<uint32_t, kSegments> base_{}, size_{};
    Offer ar_, r_, aw_, w_, b_;
    std::deque<int> reads_, writes_; // beats that are left of each burst
    int unanswered_ = 0, answerable_ = 0;
    int early_ = 0; // beats taken of the burst whose address is not
    int alone_ = 0; // cycles
};

// The port of the registers: AXI4-Lite.
class RegisterRules {
  public:
    template <class Pins> void look(const Pins& p, Report& report) {
        report.broken_if(aw_.changed(p.s_axi_awvalid, p.s_axi_awready, {p.s_axi_awaddr}) ||
                             w_.changed(p.s_axi_wvalid, p.s_axi_wready, {p.s_axi_wdata, p.s_axi_wstrb}) ||
                             ar_.changed(p.s_axi_arvalid, p.s_axi_arready, {p.s_axi_araddr}),
                         "the host changed a request before it was taken");
        report.broken_if(b_.changed(p.s_axi_bvalid, p.s_axi_bready, {p.s_axi_bresp}),
                         "the answer to a register write changed before it was taken");
        report.broken_if(r_.changed(p.s_axi_rvalid, p.s_axi_rready, {p.s_axi_rdata, p.s_axi_rresp}),
                         "a register's value changed before it was taken");
        // an answer comes at the earliest in the cycle after its request
        report.broken_if(p.s_axi_bvalid && (addresses_ == 0 || data_ == 0),
                         "a register write is answered that was not asked for");
        report.broken_if(p.s_axi_rvalid && reads_ == 0, "a register read is answered that was not asked for");
        report.broken_if((p.s_axi_bvalid && p.s_axi_bresp) || (p.s_axi_rvalid && p.s_axi_rresp),
                         "a register access is answered with an error");
        const bool answered = p.s_axi_bvalid && p.s_axi_bready;
        addresses_ += (p.s_axi_awvalid && p.s_axi_awready) - answered;
        data_ += (p.s_axi_wvalid && p.s_axi_wready) - answered;
        reads_ += (p.s_axi_arvalid && p.s_axi_arready) - (p.s_axi_rvalid && p.s_axi_rready);
    }

    bool owes_answers() const { return addresses_ || data_ || reads_; }

  private:
    Offer aw_, w_, b_, ar_, r_;
    int addresses_ = 0, data_ = 0, reads_ = 0; // taken and not answered
};

}  // namespace axi
