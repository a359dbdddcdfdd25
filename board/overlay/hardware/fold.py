"""Rows of RGB bytes into words of five neighbouring pixels, one pixel a cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed

from board.overlay.hardware.component import Elaboratable, Stream
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
        self.word = Signal(8 * WORD_BYTES)
        self.word_valid = Signal()  # is always taken
        self.moved = Signal()
        self.running = Signal()  # to the last pixel of the last row, which may lie behind the last word

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        running = self.running
        y, x = Signal(10), Signal(11)
        position, emit = Signal(signed(13)), Signal(signed(13))  # of this pixel, of the next word's last pixel
        window = Signal(PIXEL_BITS * (IMAGE_TAPS - 1))  # the last four pixels
        beat, beat_valid, place = Signal(64), Signal(), Signal(3)  # the next pixel begins at byte `place` of `beat`

        inside = (position >= 0) & (position <= self.cols_last)
        straddles = place >= 6
        ready = Signal()  # the pixel is here
        m.d.comb += ready.eq(running & (~inside | (beat_valid & (~straddles | self.beats.valid))))
        pixel = Signal(PIXEL_BITS)
        raw = Cat(beat, self.beats.payload[:16]).bit_select(place << 3, PIXEL_BITS)
        m.d.comb += pixel.eq(Mux(inside, raw ^ FLIP, 0))

        complete = (position == emit) & (x <= self.words_last)
        row_end = ((x > self.words_last) | (complete & (x == self.words_last))) & (position >= self.cols_last)
        pixels_end = position == self.cols_last
        m.d.comb += [
            self.word.eq(Cat(window, pixel, Const(0, 8))),
            self.word_valid.eq(ready & complete),
            self.moved.eq(ready),
        ]
        with m.If(ready):
            m.d.sync += [window.eq(Cat(window, pixel) >> PIXEL_BITS), position.eq(position + 1)]
            with m.If(complete):
                m.d.sync += [x.eq(x + 1), emit.eq(emit + 1 + self.stride_last)]
        with m.If(running & ~beat_valid & inside):
            m.d.comb += self.beats.ready.eq(1)
            m.d.sync += [beat.eq(self.beats.payload), beat_valid.eq(self.beats.valid), place.eq(0)]
        with m.Elif(ready & inside):
            m.d.sync += place.eq(place + 3)
            with m.If(pixels_end):
                m.d.comb += self.beats.ready.eq(straddles)
                m.d.sync += beat_valid.eq(0)
            with m.Elif(place >= 5):
                m.d.comb += self.beats.ready.eq(1)
                m.d.sync += [beat.eq(self.beats.payload), beat_valid.eq(self.beats.valid)]
        begin = [position.eq(Mux(self.lead > 0, -self.lead, 0)), emit.eq(IMAGE_TAPS - 1 - self.lead), x.eq(0)]
        with m.If(self.start):
            m.d.sync += [running.eq(1), y.eq(0), beat_valid.eq(0), *begin]
        with m.Elif(ready & row_end):
            m.d.sync += [y.eq(y + 1), running.eq(y != self.rows_last), *begin]
        return m
