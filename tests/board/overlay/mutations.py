"""Deliberate faults in the hardware, each with the test that catches it: `beltsight mutate`.

A test that no fault can fail shows nothing, and a part of the hardware without a fault here may have no test.
"""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = "test_engine.py::"  # the whole overlay, compiled anew for each fault: a minute or two


@dataclass(frozen=True)
class Mutation:
    """`old` occurs once in the file of board/overlay/hardware; `test` is a function of tests/board/overlay."""

    name: str
    file: str
    old: str
    new: str
    test: str
    reason: str = ""  # what the failure must say

    @property
    def of_a_part(self) -> bool:
        """Caught by the part's own test in seconds."""
        return not self.test.startswith(WHOLE)


DENSE = "test_array.py::test_384_products_a_step"
LANES = "test_array.py::test_lanes_weigh_each_channel_alone"
REQUANTIZE = "test_requantize.py::test_requantize_is_that_of_the_integer_network"
SUMS = "test_sums.py::test_totals_leave_after_the_last_step_one_pixel_a_cycle"
RESULTS = "test_results.py::test_every_quad_finds_its_place"
STEPS = "test_sequencer.py::test_steps_come_in_the_order_of_the_document"
ADDRESSES = "test_sequencer.py::test_addresses_follow_the_formula"
STEP_WAITS = "test_memories.py::test_a_step_waits_for_a_port_that_is_taken_and_only_for_that"
STEP_READS = "test_memories.py::test_a_step_reads_two_words_while_others_use_other_banks"
QUADS = "test_memories.py::test_results_are_written_by_quads_with_addresses_of_their_own"
WEIGHTS = "test_memories.py::test_weight_words_are_written_by_rows"
FOLD = "test_load_parts.py::test_fold_makes_words_of_five_pixels"
TILE = "test_load_parts.py::test_tile_words_go_row_by_row"
LOAD = "test_load.py::test_a_load_writes_what_the_golden_model_writes"
LOADS = "test_load.py::test_loads_leave_nothing_for_the_next"
STORE = "test_store.py::test_a_store_writes_what_the_golden_model_writes"
READER = "test_port.py::test_each_client_reads_its_own_beats_in_order_though_the_other_sleeps"
WRITER = "test_port.py::test_a_write_burst_is_asked_for_when_its_data_is_here"
SEGMENTS = "test_segments.py::test_what_leaves_its_segment_is_a_fault_and_the_last_access"
TOKENS = "test_tokens.py::test_an_instruction_starts_when_its_tokens_are_there_and_not_before"
COUNTER = "test_tokens.py::test_a_counter_holds_63_tokens"
QUEUE = "test_fetch.py::test_a_unit_that_is_busy_has_eight_instructions_waiting"
NO_END = "test_fetch.py::test_a_program_without_end_stops_the_fetch"
STROBES = "test_axi_lite.py::test_a_write_of_less_than_a_register_does_nothing"
BURSTS = "test_single_accesses.py::test_a_burst_writes_each_register_in_turn"
TWO_PORTS = "test_two_port.py::test_each_port_writes_and_reads_and_its_word_comes_two_cycles_later"
QUEUES = "test_fifo.py::test_a_queue_gives_what_it_got"
FILLS = "test_fifo.py::test_a_queue_that_nobody_reads_fills"
PASSES = "test_fifo.py::test_a_stream_passes_registers_in_both_directions"
ACCESSES = "test_axi_lite.py::test_every_access_is_done_once_and_answered_once"
STAMP = "test_barrier.py::test_an_interruption_is_stamped_with_the_time_of_its_edge"
EDGES = "test_barrier.py::test_random_levels_give_the_edges_of_the_model"
LOST = "test_barrier.py::test_sixteen_stamps_wait_and_what_is_lost_is_a_gap_in_the_numbers"
WINDOWS = "test_gate.py::test_the_gate_opens_at_its_time_for_its_cycles"
ORDERS = "test_gate.py::test_random_orders_move_the_gate_as_the_model_says"
TOO_LATE = "test_gate.py::test_a_closing_that_cannot_be_kept_closes_at_once"
POSITIONS = "test_gate.py::test_random_belts_move_the_gate_as_the_positions_say"
GOES_BACK = "test_gate.py::test_a_belt_that_goes_back_meets_a_closed_gate_before_the_window_and_behind_it"
STANDS = "test_gate.py::test_a_belt_that_stands_in_a_window_meets_a_gate_that_closes"
DISTRUSTED = "test_gate.py::test_positions_that_are_not_believed_open_nothing"
PLACE = "test_barrier.py::test_an_interruption_has_the_position_of_its_edge"
PULSES = "test_encoder.py::test_every_edge_is_counted_forward_and_back"
SILENT = "test_encoder.py::test_a_belt_that_stands_or_trembles_is_silent"
BACK = "test_encoder.py::test_a_belt_that_goes_back_further_than_it_may_is_told"
SKIPPED = "test_encoder.py::test_both_levels_at_once_are_a_count_that_is_missing"
MOMENT = "test_line.py::test_time_and_position_are_of_one_moment"
LOWERED = "test_line.py::test_a_new_limit_or_mode_shuts_the_gate"
FULL = "test_gate.py::test_windows_beyond_the_queue_are_refused"
SHUT = "test_gate.py::test_shut_closes_at_once_and_drops_what_waits"
TIME = "test_line.py::test_time_counts_every_cycle_and_is_read_in_two_halves"
LOST_FLAG = "test_line.py::test_a_lost_interruption_raises_a_flag_that_stays_until_it_is_cleared"
LAYERS = WHOLE + "test_random_layers_are_those_of_the_golden_model[0-port0]"
STALLS = WHOLE + "test_random_layers_are_those_of_the_golden_model[350-port2]"
LOAD_AND_STORE = WHOLE + "test_a_load_and_a_store_share_their_port"
STORE_AND_LOAD = WHOLE + "test_what_was_stored_can_be_loaded_at_once"
RESET = WHOLE + "test_a_reset_in_mid_program_leaves_nothing_behind"
LONG_TRANSFER = WHOLE + "test_a_reset_ends_a_long_transfer_soon"
WRONG = WHOLE + "test_a_wrong_program_ends_in_its_fault"
BAD_ANSWER = WHOLE + "test_errors_of_the_memory_are_faults"
SAME_CYCLES = WHOLE + "test_a_program_takes_the_same_cycles_every_time"

PROOF = "test_proof.py::test_no_program_and_no_signal_opens_the_gate_elsewhere"

# fmt: off
MUTATIONS = (
    Mutation("a window reaches a count behind its end", "gate.py",
             "behind.eq(here >= ends_here)", "behind.eq(here > ends_here)", PROOF, "inside it"),
    Mutation("a window is open a cycle longer than its limit", "gate.py",
             "Mux(due_left, self.limit, left - 1)", "Mux(due_left, self.limit + 1, left - 1)", PROOF, "what is left"),
    Mutation("a dead encoder opens the gate", "line.py",
             "gate.by_position & faults.any()", "gate.by_position & faults[1:].any()", PROOF, "of a silent belt"),
    Mutation("no borrow between the pixels of a lane", "array.py",
             "product[16:].as_signed() + product[15])", "product[16:].as_signed())", LANES),
    Mutation("T weighs the upper pixel's product", "array.py", "halves[0] + lower_t", "halves[0] + lower_u", LANES),
    Mutation("borrows are dropped in the adder trees", "array.py",
             "Cat(carry, right).as_signed()", "Cat(Const(0, 1), right).as_signed()", DENSE),
    Mutation("the eighth borrow is lost", "array.py", "self.borrow[j].eq(rest)", "self.borrow[j].eq(0)", DENSE),
    Mutation("a cascade takes its second weight a cycle early", "array.py",
             "delayed(m, self.w[j][second], 2)", "delayed(m, self.w[j][second], 1)", DENSE),
    Mutation("halves are rounded up", "requantize.py", "half & (fine_rest | floor[0])", "half", REQUANTIZE),
    Mutation("what the coarse shift drops is forgotten", "requantize.py",
             "_shift(coarse, coarse_rest,", "_shift(coarse, Const(0, 1),", REQUANTIZE),
    Mutation("127.5 becomes -128", "requantize.py", "floor >= 127", "floor > 127", REQUANTIZE),
    Mutation("saturation at -127", "requantize.py",
             "with m.Elif(floor < -128):\n            m.d.sync += result.eq(-128)",
             "with m.Elif(floor < -127):\n            m.d.sync += result.eq(-127)", REQUANTIZE),
    Mutation("a maximum ignores its first value", "sums.py", "self.valid & (self.first | ~self.max_mode)",
             "self.valid & ~self.max_mode", SUMS),
    Mutation("sums do not start from the bias", "sums.py",
             "self.bias[lane] & begins.replicate(32)", "self.bias[lane] & 0", SUMS),
    Mutation("both pixels give the first one's total", "sums.py", "held.eq(sums[1])", "held.eq(sums[0])", SUMS),
    Mutation("the pixel behind an odd row is written", "results.py",
             "exists, row_end = col <= f.cols,", "exists, row_end = col <= f.cols + 1,", RESULTS),
    Mutation("quads that cross a word stay in it", "results.py", "Mux(lane < turn, 1, 0)", "0", RESULTS),
    Mutation("a load does not hold a step up", "activation.py",
             "used.bit_select(bank1, 1))", "used.bit_select(bank1, 1) & 0)", STEP_WAITS),
    Mutation("a result in any bank holds a step up", "activation.py",
             "written.bit_select(bank0, 1)", "written.any()", STEP_WAITS),
    Mutation("the bank of a read is chosen a cycle late", "activation.py",
             "self.READ_CYCLES - 2)", "self.READ_CYCLES - 1)", STEP_READS),
    Mutation("all quads of a result go to one word", "activation.py",
             "late.write_index[lane]", "late.write_index[0]", QUADS),
    Mutation("a row of weights is written into those below too", "weights.py",
             "self.write_row == row", "self.write_row >= row", WEIGHTS),
    Mutation("column 0 lies outside the picture", "addresses.py", "(col[p] < 0)", "(col[p] <= 0)", ADDRESSES),
    Mutation("source b ignores its doubling", "addresses.py",
             "_choose(of_col, self.double)", "self.double[0]", ADDRESSES),
    Mutation("pixel 1 ignores the stride", "sequencer.py",
             "self.col[1].eq(self.col[0] + col_step)", "self.col[1].eq(self.col[0] + 1)", STEPS),
    Mutation("no empty cycle behind a single step", "sequencer.py",
             "rest.eq(self.first & self.last)", "rest.eq(0)", STEPS),
    Mutation("source b begins where a's rows ended", "sequencer.py",
             "m.d.sync += self.row.eq(row_start)", "m.d.sync += self.row.eq(self.row + 1)", STEPS),
    Mutation("a nest ends with its inner loops' first turn", "component.py",
             "together = together & loop.single", "together = loop.single", STEPS),
    Mutation("pixels are not made signed", "fold.py", "raw ^ FLIP", "raw", FOLD),
    Mutation("a pixel over two beats is taken when one is here", "fold.py",
             "straddles.eq(next_place >= 6)", "straddles.eq(next_place > 6)", FOLD),
    Mutation("a row begins in the beat of the row before", "fold.py",
             "m.d.sync += beat_valid.eq(0)", "m.d.sync += beat_valid.eq(1)", FOLD),
    Mutation("rows of a tile start where the last one ended", "tile.py",
             "self._go(row + self.base_row, col)", "self._go(col + self.base_row, col)", TILE),
    Mutation("rows of a tile lie without a gap in DDR", "tile.py",
             "position.eq(position + self.pitch)", "position.eq(position + self.beats)", LOAD),
    Mutation("int4 weights have no sign", "load.py", "n[3].replicate(4)", "n[3].replicate(4) & 0", LOAD),
    Mutation("a load of weights lacks its last word", "load.py", "running.eq(left != 0)", "running.eq(left > 1)", LOAD),
    Mutation("half a pair of beats reaches into the next load", "load.py",
             "with m.If(~active):", "with m.If(~active & 0):", LOADS),
    Mutation("a store ends before the memory's answer", "store.py",
             "& ~rows.access.valid & self.written", "& ~rows.access.valid", STORE),
    Mutation("a store reads a word more than its buffer holds", "store.py", "room.eq(free > 1)", "room.eq(1)", STORE),
    Mutation("bursts cross 128 bytes", "reader.py", "BURST_BEATS - self.address[:4]", "BURST_BEATS", READER),
    Mutation("a read is asked for without room", "reader.py", " & (splitter.beats <= free)", "", READER),
    Mutation("a write is asked for before its data is here", "writer.py", " & (splitter.beats <= waiting)", "", WRITER),
    Mutation("the data of a write waits for its address", "writer.py",
             "lengths.r_rdy & buffer.r_rdy)", "lengths.r_rdy & buffer.r_rdy & ~holding)", WRITER),
    Mutation("the end of a segment is checked a beat late", "segments.py", "end > size", "end > size + 1", SEGMENTS),
    Mutation("the end of an access wraps", "segments.py",
             "data(29), data(29), data(30)", "data(29), data(29), data(29)", SEGMENTS),
    Mutation("a wait takes no token", "tokens.py",
             "count.eq(count - 1), some[giver, taker].eq(count != 1)", "count.eq(count)", TOKENS),
    Mutation("a 64th token is lost in silence", "tokens.py", "& count.all()", "& 0", COUNTER),
    Mutation("an instruction for a full queue is dropped", "fetch.py",
             "with m.If(fifos[unit].w_rdy):", "with m.If(1):", QUEUE),
    Mutation("an empty program is fetched", "fetch.py", "nothing.eq(self.instructions == 0)", "nothing.eq(0)", NO_END),
    Mutation("a burst that wraps goes on", "single_accesses.py", "self.burst == WRAPS", "self.burst == 3", BURSTS),
    Mutation("a burst has a beat too few", "single_accesses.py", "left == 0", "left == 1", BURSTS),
    Mutation("a queue's last place stays empty", "fifo.py",
             "stored != self.depth - 1", "stored < self.depth - 2", FILLS),
    Mutation("a queue takes more than it holds", "fifo.py",
             "enters.eq(self.w_en & self.w_rdy)", "enters.eq(self.w_en)", QUEUES),
    Mutation("a queue gives a word twice", "fifo.py", "consume.eq(consume + moves)", "consume.eq(consume)", QUEUES),
    Mutation("what stands aside is lost", "component.py",
             "Mux(waits, aside, self.source.payload[bits])", "self.source.payload[bits]", PASSES),
    Mutation("a word comes a cycle early", "two_port.py",
             "m.d.sync += port.word.eq(read.data)", "m.d.comb += port.word.eq(read.data)", TWO_PORTS),
    Mutation("a byte written to a register counts as a word", "axi_lite.py", "self.wstrb.all()", "1", STROBES),
    Mutation("a register is read again before its value was taken", "axi_lite.py",
             "self.arready.eq(~asked & ~reads & ~self.rvalid)", "self.arready.eq(~asked & ~reads)", ACCESSES),
    Mutation("a stamp is the time of the filter's end", "barrier.py",
             "Cat(since, self.count, place)", "Cat(self.time, self.count, place)", STAMP),
    Mutation("an edge right behind another has that one's stamp", "barrier.py",
             "steady.eq(0), since.eq(self.time), place.eq(self.position)]\n                m.d.comb",
             "steady.eq(0)]\n                m.d.comb", EDGES),
    Mutation("the filter takes a cycle longer", "barrier.py",
             "steady >= self.filter_cycles", "steady > self.filter_cycles", EDGES),
    Mutation("a lost interruption has no number", "barrier.py",
             "self.count + comes", "self.count + (comes & ~self.loses)", LOST),
    Mutation("a window that has begun is queued", "gate.py", "added <= soon", "added + 9 <= soon", ORDERS),
    Mutation("a window reaches into the one before", "gate.py",
             "Mux(closes, behind_begun, behind_end)", "behind_begun", ORDERS),
    Mutation("a window may be a cycle longer than the limit", "gate.py",
             "self.cycles > self.limit", "self.cycles > self.limit + 1", ORDERS),
    Mutation("the gate opens a cycle late", "gate.py", "self.time + 2", "self.time + 1", WINDOWS),
    Mutation("the gate closes a cycle late", "gate.py", "here >= ends_here", "here > ends_here", WINDOWS),
    Mutation("a part that must not pass meets its neighbour's window", "gate.py",
             "is_open & ~due & ~behind", "is_open & ~behind", ORDERS),
    Mutation("a closing that comes too late is only counted", "gate.py",
             "m.d.comb += shutting.eq(1)", "m.d.comb += shutting.eq(0)", TOO_LATE),
    Mutation("windows outlive a shut", "windows.py", "Mux(self.drop, 0,", "Mux(0, 0,", SHUT),
    Mutation("a full queue takes one more", "windows.py", "self.add < WINDOWS", "self.add <= WINDOWS", FULL),
    Mutation("a window of positions is one of times", "gate.py",
             "here.eq(_choose(self.by_positions[2:],", "here.eq(_choose([0, 0],", POSITIONS),
    Mutation("a belt that goes back leaves the gate open before the window", "gate.py",
             "goes_on & ~before", "goes_on", GOES_BACK),
    Mutation("a belt that stands in a window leaves the gate open", "gate.py",
             "~behind & (left == 1)", "~behind & (left == 0)", STANDS),
    Mutation("a window opens though the position is not believed", "gate.py",
             "self.shut | self.distrusted", "self.shut", DISTRUSTED),
    Mutation("a part has the position of the filter's end", "barrier.py",
             "Cat(since, self.count, place)", "Cat(since, self.count, self.position)", PLACE),
    Mutation("the encoder counts every second edge", "encoder.py", "changed.xor()", "changed[0]", PULSES),
    Mutation("the belt goes the other way", "encoder.py", "a_before ^ b ^", "a_before ^ ~b ^", PULSES),
    Mutation("a belt that trembles is not silent", "encoder.py",
             "counts & ~back & (self.position == furthest)", "counts & ~back", SILENT),
    Mutation("a belt may go back a count less", "encoder.py",
             "furthest - self.position >", "furthest - self.position >=", BACK),
    Mutation("a count that is missing is not told", "encoder.py",
             "skipped.eq(changed.all())", "skipped.eq(0)", SKIPPED),
    Mutation("a position is that of another moment than the time", "line.py",
             '"POSITION_LOW": position[:32]', '"POSITION_LOW": self.encoder.position[:32]', MOMENT),
    Mutation("a limit that is lowered leaves a longer window open", "line.py",
             '("GATE_SHUT", "GATE_LIMIT", "ENCODER_MODE")', '("GATE_SHUT", "ENCODER_MODE")', LOWERED),
    Mutation("the time's upper half is read from a later moment", "line.py",
             '"TIME_HIGH": high', '"TIME_HIGH": self.time[32:]', TIME),
    Mutation("a flag is cleared by whatever is written", "line.py", "flags & ~cleared | raised", "raised", LOST_FLAG),
    Mutation("bursts of the whole overlay cross 128 bytes", "reader.py",
             "BURST_BEATS - self.address[:4]", "BURST_BEATS", LAYERS, "a burst crosses a multiple of 128 bytes"),
    Mutation("an offered address changes", "reader.py",
             "        with m.If(~holding):", "        with m.If(1):", STALLS, "changed before it was taken"),
    Mutation("padding of a maximum is 0", "compute.py",
             "Cat(Const(0, 7), copy)", "Cat(Const(0, 7), copy & 0)", LAYERS),
    Mutation("a refused step is lost", "compute.py", "step = ready.unless(m, (refused[3], refused[4]), aside)",
             "step = ready", LAYERS),
    Mutation("weights come a cycle late", "compute.py",
             "OPERAND_CYCLES - WeightMemory.READ_CYCLES)", "OPERAND_CYCLES + 1 - WeightMemory.READ_CYCLES)", LAYERS),
    Mutation("a negative pixel 0 does not borrow from pixel 1", "compute.py", "a[1] - a[0][7]", "a[1]", LAYERS),
    Mutation("the bias is read when it has gone", "compute.py",
             "self._parameters(m, delayed(m, start, PARAMETER_CYCLES))",
             "self._parameters(m, delayed(m, start, PARAMETER_CYCLES + 2))", LAYERS),
    Mutation("a load and a store use one port at once", "engine.py",
             "store.read_grant.eq(~load.write)", "store.read_grant.eq(1)", LOAD_AND_STORE),
    Mutation("a store ends while its beats are in the writer", "engine.py",
             "store.written.eq(self.writer.idle & translators[2].access.ready)", "store.written.eq(1)", STORE_AND_LOAD),
    Mutation("units are not cleared behind a run", "engine.py",
             "m.submodules[name] = ResetInserter(clear)(part)", "m.submodules[name] = part", RESET),
    Mutation("a reset does not wait for bursts under way", "control.py",
             "with m.If(self.at_rest):", "with m.If(1):", RESET),
    Mutation("a reset does not keep new reads back", "engine.py",
             "self.reader.stop.eq(self.control.stop)", "self.reader.stop.eq(0)", LONG_TRANSFER),
    Mutation("a reset does not keep new writes back", "engine.py",
             "self.writer.stop.eq(self.control.stop)", "self.writer.stop.eq(0)", LONG_TRANSFER),
    Mutation("the watchdog sleeps", "engine.py", "self.watchdog != 0", "self.watchdog == 0", WRONG),
    Mutation("an error of a write is not seen", "engine.py",
             "(self.writer.failed, Fault.WRITE)", "(0, Fault.WRITE)", BAD_ANSWER),
    Mutation("counters go on from run to run", "control.py",
             "*(count.eq(0) for count in self.counters.values())",
             "*(count.eq(count) for count in self.counters.values())", SAME_CYCLES),
    Mutation("a fault raises no interrupt", "overlay.py", "enabled & (done | failed)", "enabled & done", WRONG),
)
# fmt: on
