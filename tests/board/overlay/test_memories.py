from __future__ import annotations

from typing import Any

from board.overlay.hardware.activation import ActivationMemory
from board.overlay.hardware.weights import WeightMemory
from board.overlay.isa import BANK_WORDS
from tests.board.overlay.clocked import simulate


def word(seed: int) -> int:
    return int.from_bytes(bytes((seed * 37 + i * 11) & 255 for i in range(16)), "little")


def test_a_step_reads_two_words_while_others_use_other_banks() -> None:
    memory = ActivationMemory()

    async def bench(ctx: Any) -> None:
        places = [5, BANK_WORDS - 1, BANK_WORDS, 3 * BANK_WORDS + 77]
        ctx.set(memory.port, 1)
        ctx.set(memory.port_write, 1)
        for place in places:
            ctx.set(memory.port_address, place)
            ctx.set(memory.port_write_data, word(place))
            await ctx.tick()
        ctx.set(memory.port, 0)
        await ctx.tick()
        ctx.set(memory.step, 3)
        for left in places:
            for right in places:
                ctx.set(memory.step_address[0], left)
                ctx.set(memory.step_address[1], right)
                assert ctx.get(memory.step_grant)
                await ctx.tick().repeat(memory.READ_CYCLES)
                assert [ctx.get(data) for data in memory.step_data] == [word(left), word(right)]

    simulate(memory, bench)


def test_a_step_waits_for_a_port_that_is_taken_and_only_for_that() -> None:
    memory = ActivationMemory()

    async def bench(ctx: Any) -> None:
        ctx.set(memory.step_address[0], 1 * BANK_WORDS)
        ctx.set(memory.step_address[1], 2 * BANK_WORDS)
        for write_bank in range(4):
            for port_bank in range(4):
                for needs in range(4):
                    ctx.set(memory.step, needs)
                    ctx.set(memory.write, 4)
                    ctx.set(memory.write_address[2], write_bank * BANK_WORDS)
                    ctx.set(memory.port, 1)
                    ctx.set(memory.port_address, port_bank * BANK_WORDS)
                    await ctx.tick()
                    taken = (needs & 1 and write_bank == 1) or (needs & 2 and port_bank == 2)
                    assert ctx.get(memory.step_grant) == (not taken)

    simulate(memory, bench)


def test_results_are_written_by_quads_with_addresses_of_their_own() -> None:
    memory = ActivationMemory()

    async def bench(ctx: Any) -> None:
        ctx.set(memory.write, 0b1011)
        for lane, address in enumerate([9, 8, 8, 8 + BANK_WORDS]):
            ctx.set(memory.write_address[lane], address)
        ctx.set(memory.write_data, word(1))
        await ctx.tick()
        ctx.set(memory.write, 0)
        quads = [word(1) >> 32 * lane & 0xFFFFFFFF for lane in range(4)]
        for address, want in ((9, quads[0]), (8, quads[1] << 32), (8 + BANK_WORDS, quads[3] << 96)):
            ctx.set(memory.port, 1)
            ctx.set(memory.port_address, address)
            await ctx.tick().repeat(memory.PORT_CYCLES)
            assert ctx.get(memory.port_data) == want

    simulate(memory, bench)


def test_weight_words_are_written_by_rows() -> None:
    memory = WeightMemory()

    async def bench(ctx: Any) -> None:
        ctx.set(memory.write, 1)
        for row in range(12):
            ctx.set(memory.write_word, 1023)
            ctx.set(memory.write_row, row)
            ctx.set(memory.write_data, word(row))
            await ctx.tick()
        ctx.set(memory.write, 0)
        ctx.set(memory.address, 1023)
        await ctx.tick().repeat(memory.READ_CYCLES)
        assert ctx.get(memory.data) == sum(word(row) << 128 * row for row in range(12))
        ctx.set(memory.one, 1)
        await ctx.tick().repeat(memory.ONE_CYCLES)
        ones = ctx.get(memory.data).to_bytes(192, "little")
        assert [i for i, byte in enumerate(ones) if byte] == sorted(16 * (c % 2) + c for c in range(16))

    simulate(memory, bench)
