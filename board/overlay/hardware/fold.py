"""Rows of RGB bytes into words of five neighbouring pixels, one pixel a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed

from board.overlay.hardware.component import Elaboratable, Loop, Stream, data
from board.overlay.isa import IMAGE_TAPS, WORD_BYTES

PIXEL_BITS = 24
FLIP = 0x808080  # pixel - 128 is the pixel with its upper bit turned


class Fold(Elaboratable):
    """After `start`, takes the beats of the rows and gives their words; every row begins with a beat of its own."""

    def __init__(self) -> None:
        self.start = Signal()
        self.rows_last = Signal(10)
        self.cols_last = Signal(10)
        self.words_last = Signal(10)
        self.stride_last = Signal()
        self.lead = Signal(signed(6))
        self.beats = Stream(64, "fold_beats")
        self.word = data(8 * WORD_BYTES)
        self.word_valid = Signal()  # is always taken
        self.moved = Signal()
        self.running = Signal()  # to the last word and the last pixel of the last row

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        active = Signal()
        y, x = Loop(self.rows_last, "y"), Loop(self.words_last, "x")
        full = data()  # the row has its words
        position, emit = data(signed(13)), data(signed(13))  # of this pixel, of the next word's last pixel
        window = data(PIXEL_BITS * (IMAGE_TAPS - 1))  # the last four pixels
        beat, beat_valid, place = data(64), data(), data(3)  # the next pixel begins at byte `place` of `beat`
        # Of position and place, from registers: every path through `ready` would else begin with a comparison.
        inside, last_inside, past = data(), data(), data()  # the row; its last pixel; that one or behind it
        straddles, uses_up = data(), data()  # the pixel needs the next beat too; ends this one
        due = data()  # position == emit

        ready = Signal()  # the pixel is here
        m.d.comb += ready.eq(active & (~inside | (beat_valid & (~straddles | self.beats.valid))))
        pixel = Signal(PIXEL_BITS)
        raw = Cat(beat, self.beats.payload[:16]).bit_select(place << 3, PIXEL_BITS)
        m.d.comb += pixel.eq(Mux(inside, raw ^ FLIP, 0))

        complete = ready & due & ~full
        row_end = ready & past & (full | (due & x.ends))
        m.d.sync += [self.word.eq(Cat(window, pixel, Const(0, 8))), self.word_valid.eq(complete)]
        m.d.comb += [self.moved.eq(ready), self.running.eq(active | self.word_valid)]
        later = position + 1
        with m.If(ready):
            m.d.sync += [window.eq(Cat(window, pixel) >> PIXEL_BITS), position.eq(later)]
            m.d.sync += [inside.eq((later >= 0) & (later <= self.cols_last)), past.eq(later >= self.cols_last)]
            m.d.sync += [last_inside.eq(later == self.cols_last), due.eq(later == emit)]
            with m.If(due & ~full):
                m.d.sync += [x.advance(), full.eq(x.ends), emit.eq(emit + 1 + self.stride_last)]
                m.d.sync += due.eq(~self.stride_last)
        # subtle: not `ready`, which is the same whenever a beat is there
        wants = ~beat_valid | Mux(last_inside, straddles, uses_up)
        m.d.comb += self.beats.ready.eq(active & inside & wants)
        next_place = Signal(3)
        m.d.comb += next_place.eq(place)
        m.d.sync += [place.eq(next_place), straddles.eq(next_place >= 6), uses_up.eq(next_place >= 5)]
        with m.If(active & ~beat_valid & inside):
            m.d.comb += next_place.eq(0)
            m.d.sync += [beat.eq(self.beats.payload), beat_valid.eq(self.beats.valid)]
        with m.Elif(ready & inside):
            m.d.comb += next_place.eq(place + 3)
            with m.If(last_inside):
                m.d.sync += beat_valid.eq(0)
            with m.Elif(uses_up):
                m.d.sync += [beat.eq(self.beats.payload), beat_valid.eq(self.beats.valid)]
        ahead = self.lead > 0
        begin = [
            position.eq(Mux(ahead, -self.lead, 0)),
            emit.eq(IMAGE_TAPS - 1 - self.lead),
            inside.eq(~ahead),
            last_inside.eq(~ahead & (self.cols_last == 0)),
            past.eq(~ahead & (self.cols_last == 0)),
            due.eq(0),
            full.eq(0),
            x.begin(),
        ]
        with m.If(self.start):
            m.d.sync += [active.eq(1), beat_valid.eq(0), y.begin(), begin]
        with m.Elif(row_end):
            m.d.sync += [active.eq(~y.ends), y.advance(), begin]
        return m
