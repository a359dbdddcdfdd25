"""The load unit: tiles and images into the activation memory, weights into the weight memory."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal

from board.overlay.hardware.activation import ADDRESS_BITS
from board.overlay.hardware.component import PINS, Elaboratable, Stream, data, kept
from board.overlay.hardware.decode import split_fields
from board.overlay.hardware.fold import Fold
from board.overlay.hardware.tile import TileRows, TileWords, count_beats
from board.overlay.hardware.weights import ROW_BITS
from board.overlay.isa import (
    CHANNELS_OUT,
    INSTRUCTION_BYTES,
    OPCODE_BITS,
    WEIGHT_WORDS,
    WORD_BYTES,
    LoadImage,
    LoadTile,
    LoadWeights,
    WeightFormat,
)

PARTS = 8 * WORD_BYTES // PINS  # of a word


class LoadUnit(Elaboratable):
    """`instruction` is taken when the unit is free; `finished` for one cycle when its last word is written."""

    def __init__(self) -> None:
        self.instruction = Stream(8 * INSTRUCTION_BYTES, "load_instruction")
        self.finished = Signal()
        self.idle = Signal(init=1)
        self.moved = Signal()
        self.rows = TileRows()
        self.beats = Stream(64, "load_beats")
        self.write = Signal()
        self.write_address = data(ADDRESS_BITS)
        self.write_data = data(8 * WORD_BYTES)
        self.weight_write = Signal()
        self.weight_word = data(range(WEIGHT_WORDS))
        self.weight_row = data(range(CHANNELS_OUT))
        self.weight_data = Signal(ROW_BITS)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        current = data(8 * INSTRUCTION_BYTES)
        tile, image, weights = (split_fields(current, kind) for kind in (LoadTile, LoadImage, LoadWeights))
        fields = (tile, image, weights)
        # of `current`; those that choose between words have a register for each part of them
        is_image, is_weights, narrow = data(), data(), data()
        are_image, are_narrow = (kept(PARTS, name) for name in ("are_image", "are_narrow"))
        opcode = self.instruction.payload[:OPCODE_BITS]
        asked = split_fields(self.instruction.payload, LoadWeights)
        m.submodules.rows = rows = self.rows
        m.submodules.words = words = TileWords()
        m.submodules.fold = fold = Fold()
        start, pairs = Signal(), Signal()
        start_words, start_fold = Signal(), Signal()
        self._ask(m, fields, is_image, is_weights)

        for number, (to, of_tile, of_image) in enumerate(
            (
                (words.base, tile.base, image.base),
                (words.base_row, tile.base_row, image.base_row),
                (words.base_col, tile.base_col, image.base_col),
                (words.rows_last, tile.rows, image.rows),
                (words.cols_last, tile.cols, image.words),
                (words.words_last, tile.words, 0),
            )
        ):
            m.d.sync += to.eq(Mux(are_image[number % PARTS], of_image, of_tile))  # from START to GO
        m.d.comb += [
            fold.rows_last.eq(image.rows),
            fold.cols_last.eq(image.cols),
            fold.words_last.eq(image.words),
            fold.stride_last.eq(image.stride),
            fold.lead.eq(image.lead),
        ]

        pair = self._pair_beats(m, pairs, narrow, are_narrow)
        writes_weights = self._write_weights(m, weights, start & is_weights, pair)
        m.d.comb += [
            words.next.eq(fold.word_valid | (pair.valid & ~is_weights)),  # no pairs while there is an image
            fold.beats.valid.eq(self.beats.valid),
            fold.beats.payload.eq(self.beats.payload),
            self.beats.ready.eq(pairs | fold.beats.ready),
            self.moved.eq((self.beats.valid & self.beats.ready) | fold.moved),
        ]
        m.d.sync += [self.write.eq(words.next), self.write_address.eq(words.address)]
        for part, image_part in enumerate(are_image):
            here = slice(PINS * part, PINS * (part + 1))
            m.d.sync += self.write_data[here].eq(Mux(image_part, fold.word[here], pair.payload[here]))
        m.d.comb += [self.instruction.ready.eq(self.idle), rows.start.eq(start)]
        m.d.comb += [words.start.eq(start_words), fold.start.eq(start_fold)]
        with m.FSM():
            with m.State("IDLE"):
                takes_image, takes_weights = opcode == LoadImage.OPCODE, opcode == LoadWeights.OPCODE
                takes_narrow = takes_weights & (asked.format == WeightFormat.INT4)
                m.d.sync += [current.eq(self.instruction.payload), is_weights.eq(takes_weights)]
                m.d.sync += [copy.eq(takes_image) for copy in (is_image, *are_image)]
                m.d.sync += [copy.eq(takes_narrow) for copy in (narrow, *are_narrow)]
                with m.If(self.instruction.valid):
                    m.d.sync += self.idle.eq(0)
                    m.next = "START"
            with m.State("START"):  # a cycle for the number of beats, of which the rest comes with GO
                m.d.sync += [start.eq(1), start_words.eq(~is_weights), start_fold.eq(is_image)]
                m.next = "GO"
            with m.State("GO"):
                m.d.sync += [start.eq(0), start_words.eq(0), start_fold.eq(0), pairs.eq(~is_image)]
                m.next = "RUN"
            with m.State("RUN"), m.If(Mux(is_weights, ~writes_weights, ~words.valid & ~fold.running)):
                m.d.sync += pairs.eq(0)
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.finished.eq(1)
                m.d.sync += self.idle.eq(1)
                m.next = "IDLE"
        return m

    def _ask(self, m: Module, fields: Any, is_image: Any, is_weights: Any) -> None:
        (tile, image, weights), rows = fields, self.rows
        image_bytes, weight_rows = data(13), data(15)
        more = weights.words + 1
        m.d.sync += [image_bytes.eq(image.cols + (image.cols << 1) + 3), weight_rows.eq((more << 3) + (more << 2))]
        wide = weights.format == WeightFormat.INT8
        m.d.comb += [
            rows.segment.eq(tile.segment),  # segment and address lie at the same place in all three
            rows.address.eq(tile.address),
            rows.pitch.eq(tile.pitch),
            rows.rows_last.eq(Mux(is_weights, 0, Mux(is_image, image.rows, tile.rows))),
            rows.beats.eq(count_beats(m, tile.cols, tile.words)),
        ]
        with m.If(is_image):
            m.d.comb += rows.beats.eq((image_bytes + 7) >> 3)
        with m.If(is_weights):
            m.d.comb += rows.beats.eq(Mux(wide, weight_rows << 1, weight_rows))

    def _pair_beats(self, m: Module, active: Any, narrow: Any, are_narrow: list[Any]) -> Stream:
        """Two beats, or one of 16 nibbles, as 16 bytes; always taken."""
        pair = Stream(8 * WORD_BYTES, "pair")
        low, half = data(64), Signal()
        beat = self.beats.payload
        nibbles = [beat[4 * i : 4 * i + 4] for i in range(WORD_BYTES)]
        widened, joined = Cat(Cat(n, n[3].replicate(4)) for n in nibbles), Cat(low, beat)
        for part, narrow_part in enumerate(are_narrow):
            here = slice(PINS * part, PINS * (part + 1))
            m.d.comb += pair.payload[here].eq(Mux(narrow_part, widened[here], joined[here]))
        with m.If(~active):
            m.d.sync += half.eq(narrow)
        with m.Elif(self.beats.valid & ~narrow):
            m.d.sync += [half.eq(~half), low.eq(beat)]
        m.d.comb += pair.valid.eq(active & self.beats.valid & half)
        return pair

    def _write_weights(self, m: Module, weights: Any, start: Any, pair: Stream) -> Any:
        running, left = Signal(), data(10)
        m.d.comb += [self.weight_write.eq(pair.valid & running), self.weight_data.eq(pair.payload)]
        with m.If(start):
            m.d.sync += [
                running.eq(1),
                left.eq(weights.words),
                self.weight_word.eq(weights.base),
                self.weight_row.eq(0),
            ]
        with m.Elif(self.weight_write):
            m.d.sync += self.weight_row.eq(self.weight_row + 1)
            with m.If(self.weight_row == CHANNELS_OUT - 1):
                m.d.sync += [self.weight_row.eq(0), self.weight_word.eq(self.weight_word + 1), left.eq(left - 1)]
                m.d.sync += running.eq(left != 0)
        return running
