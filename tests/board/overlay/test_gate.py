"""The gate's hardware by itself: it opens for windows that were programmed ahead, and for nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from board.overlay.hardware.gate import AHEAD_CYCLES, NOWHERE, Gate
from board.overlay.hardware.windows import WINDOWS
from board.overlay.registers import REFUSED_FULL, REFUSED_LONG, REFUSED_MOTION, REFUSED_OVERLAP, REFUSED_PAST
from tests.board.overlay.clocked import PERIOD_S, simulate

LIMIT = 40
QUEUE_CYCLES = 4  # a window's way to the head of the queue


@dataclass(frozen=True)
class Order:
    """Given at time `at`: a window, or a closing where `cycles` is 0, or, where `start` is None, that all be shut."""

    at: int
    start: int | None
    cycles: int = 0


def model(orders: list[Order], limit: int) -> tuple[set[int], list[int]]:
    """Times at which the gate is open, and why each order was refused."""
    kept: list[Order] = []
    begun = end = NOWHERE
    opened: set[int] = set()
    reasons = []

    def cut(at: int) -> None:
        opened.difference_update([time for time in opened if time > at])

    for order in orders:
        if order.start is None:
            begun, end, kept = NOWHERE, NOWHERE, []
            cut(order.at)
            reasons.append(0)
            continue
        behind = begun if order.cycles == 0 else end
        waiting = [one for one in kept if one.start is not None and one.start >= order.at]
        why = REFUSED_PAST * (order.start <= order.at + AHEAD_CYCLES - 1)
        why |= REFUSED_OVERLAP * (order.start <= behind) | REFUSED_LONG * (order.cycles > limit)
        why |= REFUSED_FULL * (len(waiting) >= WINDOWS)
        reasons.append(why)
        if why and order.cycles == 0:
            begun, end, kept = NOWHERE, NOWHERE, []
            cut(order.at + 1)
        elif not why:
            kept.append(order)
            begun, end = order.start, order.start + order.cycles
            cut(begun)
            opened.update(range(begun + 1, end + 1))  # a register drives the pin: it changes with the cycle after
    return opened, reasons


def run(orders: list[Order], until: int, *, limit: int = LIMIT) -> tuple[set[int], list[int], int]:
    """The same of the hardware, and how many it counted as missed."""
    part = Gate()
    opened: set[int] = set()
    reasons: list[int] = []
    waiting = list(orders)
    missed = 0

    async def bench(ctx: Any) -> None:
        nonlocal missed
        ctx.set(part.limit, limit)
        asked = -1
        for time in range(until):
            ctx.set(part.time, time)
            due = waiting.pop(0) if waiting and waiting[0].at == time else None
            ctx.set(part.add, int(due is not None and due.start is not None))
            ctx.set(part.shut, int(due is not None and due.start is None))
            if due is not None and due.start is not None:
                ctx.set(part.start, due.start)
                ctx.set(part.cycles, due.cycles)
            if time == asked:
                reasons.append(int(ctx.get(part.refused)))
            asked = time + 1 if due is not None else asked
            if ctx.get(part.pin):
                opened.add(time)
            await ctx.tick()
        missed = int(ctx.get(part.missed))

    simulate(part, bench)
    return opened, reasons, missed


def check(orders: list[Order], until: int = 400) -> tuple[set[int], list[int]]:
    """What the model says, after the hardware has said the same."""
    opened, reasons = model(orders, LIMIT)
    opened &= set(range(until))
    assert run(orders, until) == (opened, reasons, sum(why != 0 for why in reasons))
    return opened, reasons


def test_the_gate_opens_at_its_time_for_its_cycles() -> None:
    opened, reasons = check([Order(2, 40, 7), Order(4, 60, 1), Order(6, 70, 20)])
    assert opened == {*range(41, 48), 61, *range(71, 91)}
    assert reasons == [0, 0, 0]


def test_windows_may_be_a_cycle_apart() -> None:
    opened, _ = check([Order(2 * number, 50 + 2 * number, 1) for number in range(1, 8)])
    assert opened == {51 + 2 * number for number in range(1, 8)}


def test_a_window_that_is_not_ahead_is_refused() -> None:
    opened, reasons = check([Order(50, 49, 10), Order(60, 60 + AHEAD_CYCLES - 1, 10), Order(90, 98, 5)])
    assert reasons == [REFUSED_PAST, REFUSED_PAST, 0]
    assert opened == set(range(99, 104))


def test_a_window_that_reaches_into_another_is_refused() -> None:
    opened, reasons = check([Order(2, 50, 20), Order(4, 60, 20), Order(6, 70, 5), Order(8, 71, 5), Order(10, 30, 5)])
    assert reasons == [0, REFUSED_OVERLAP, REFUSED_OVERLAP, 0, REFUSED_OVERLAP]
    assert opened == {*range(51, 71), *range(72, 77)}


def test_a_window_is_no_longer_than_the_limit() -> None:
    opened, reasons = check([Order(2, 50, LIMIT + 1), Order(4, 100, LIMIT), Order(6, 200, 1 << 31)])
    assert reasons == [REFUSED_LONG, 0, REFUSED_LONG]
    assert len(opened) == LIMIT


def test_without_a_limit_nothing_opens_the_gate() -> None:
    assert run([Order(2, 50, 1), Order(4, 60, 10)], 100, limit=0) == (set(), [REFUSED_LONG] * 2, 2)


def test_windows_beyond_the_queue_are_refused() -> None:
    orders = [Order(2 * number, 100 + 10 * number, 3) for number in range(WINDOWS + 2)]
    opened, reasons = check(orders)
    assert reasons == [0] * WINDOWS + [REFUSED_FULL] * 2
    assert len(opened) == 3 * WINDOWS


def test_a_part_that_must_not_pass_closes_the_gate_on_its_neighbour() -> None:
    opened, _ = check([Order(2, 50, 30), Order(4, 60, 0), Order(6, 90, 5)])
    assert opened == {*range(51, 61), *range(91, 96)}


@pytest.mark.parametrize("start", [55, 62])
def test_a_closing_that_cannot_be_kept_closes_at_once(start: int) -> None:
    """It comes too late, or not in order: what waits is dropped with it."""
    opened, reasons = check([Order(2, 50, 30), Order(4, 90, 5), Order(60, start, 0), Order(64, 100, 5)])
    assert reasons[2] & REFUSED_PAST
    assert opened == {*range(51, 62), *range(101, 106)}


def test_shut_closes_at_once_and_drops_what_waits() -> None:
    opened, _ = check([Order(2, 50, 30), Order(4, 90, 5), Order(6, 100, 5), Order(60, None), Order(64, 75, 5)])
    assert opened == {*range(51, 61), *range(76, 81)}


def test_a_time_beyond_32_bits_is_not_taken_for_a_near_one() -> None:
    opened, reasons = check([Order(2, (1 << 32) + 20, 5)], 60)
    assert (opened, reasons) == (set(), [0])


def test_a_reset_closes_the_gate() -> None:
    """Also with the limit and the queue, so that nothing opens it until somebody has programmed it again."""
    part, reset, levels = Gate(), Signal(), []

    async def bench(ctx: Any) -> None:
        ctx.set(part.limit, LIMIT)
        for time in range(100):
            ctx.set(part.time, time)
            ctx.set(part.add, int(time in (2, 4)))
            ctx.set(part.start, 20 if time < 4 else 60)
            ctx.set(part.cycles, 30)
            ctx.set(reset, int(time == 30))
            levels.append(int(ctx.get(part.pin)))
            await ctx.tick()

    simulate_with(ResetInserter(reset)(part), bench)
    assert [time for time, level in enumerate(levels) if level] == list(range(21, 31))


def simulate_with(part: Any, bench: Callable[[Any], Awaitable[None]]) -> None:
    simulator = Simulator(part)
    simulator.add_clock(PERIOD_S)
    simulator.add_testbench(bench)
    simulator.run()


def random_orders(seed: int) -> list[Order]:
    """Windows and closings, most of them in order, some late, too long, over each other, and a shut now and then."""
    rng = np.random.default_rng(seed)
    orders: list[Order] = []
    taken: set[int] = set()  # times near which a start lies: there the queue's level depends on its own latency
    at, behind = 2, 40
    while at < 1500:
        kind = rng.random()
        if kind < 0.05:
            orders.append(Order(at, None))
        else:
            start = behind + int(rng.integers(-8, 30)) if rng.random() < 0.8 else at + int(rng.integers(-20, 60))
            cycles = 0 if rng.random() < 0.3 else int(rng.integers(1, LIMIT + 5))
            start = max(start, at - 30, 0)
            if not any(abs(start - other) < QUEUE_CYCLES for other in taken):
                orders.append(Order(at, start, cycles))
                taken.add(start)
                behind = max(behind, start + cycles)
        at += int(rng.integers(2, 40))
        while any(0 <= at - other < QUEUE_CYCLES + 2 or -2 <= at - other < 0 for other in taken):
            at += 1
        behind = max(behind, at)
    return orders


@pytest.mark.parametrize("seed", range(4))
def test_random_orders_move_the_gate_as_the_model_says(seed: int) -> None:
    orders = random_orders(seed)
    opened, reasons = check(orders, 1700)
    assert len(opened) > 50
    assert 0 in reasons
    for reason in (REFUSED_PAST, REFUSED_OVERLAP, REFUSED_LONG):
        assert any(why & reason for why in reasons)


class Belt:
    """Positions cycle by cycle, windows on them, and where the gate was open."""

    def __init__(self, ctx: Any, part: Gate, limit: int = 10_000) -> None:
        self.ctx, self.part = ctx, part
        self.positions = [0]
        self.opened: list[bool] = []
        for signal in (part.by_position, *part.by_positions):
            ctx.set(signal, 1)
        ctx.set(part.limit, limit)

    async def add(self, start: int, counts: int) -> int:
        """Why the window is refused."""
        self.ctx.set(self.part.start, start)
        self.ctx.set(self.part.cycles, counts)
        self.ctx.set(self.part.add, 1)
        await self.rest(1)
        self.ctx.set(self.part.add, 0)
        why = int(self.ctx.get(self.part.refused))
        await self.rest(QUEUE_CYCLES)
        return why

    async def move(self, counts: int, cycles_each: int = 3) -> None:
        for _ in range(abs(counts)):
            self.positions[-1] += 1 if counts > 0 else -1
            self.ctx.set(self.part.position, self.positions[-1])
            await self.rest(cycles_each)

    async def rest(self, cycles: int) -> None:
        for _ in range(cycles):
            self.opened.append(bool(self.ctx.get(self.part.pin)))
            await self.ctx.tick()
            self.positions.append(self.positions[-1])

    def open_at(self) -> set[int]:
        """Positions, as they were when the gate could last look at them."""
        seen = zip(self.positions, self.opened[PLACE_CYCLES:], strict=False)
        return {position for position, is_open in seen if is_open}


PLACE_CYCLES = 3  # from a position to the pin


@pytest.mark.parametrize("seed", range(3))
def test_random_belts_move_the_gate_as_the_positions_say(seed: int) -> None:
    """A belt that goes on, trembles and stands, over windows of good parts and closings for bad ones."""
    part, rng = Gate(), np.random.default_rng(seed)

    async def bench(ctx: Any) -> None:
        belt, end, wanted = Belt(ctx, part), -40, set()
        await belt.move(-50)  # positions below 0 are positions too
        for _ in range(12):
            start, counts = end + int(rng.integers(2, 20)), int(rng.integers(1, 30))
            assert await belt.add(start, counts) == 0
            end = start + counts
            if rng.random() < 0.3:
                end = int(rng.integers(start + 1, end + 1))
                assert await belt.add(end, 0) == 0
            wanted |= set(range(start, end))
            while belt.positions[-1] < end - 1:
                await belt.move(int(rng.integers(1, 9)), int(rng.integers(1, 12)))
                back = min(3, max(0, belt.positions[-1] - start))
                await belt.move(-back)
                await belt.move(back)
            end = max(end, belt.positions[-1])
        await belt.rest(10)
        assert belt.open_at() == wanted

    simulate(part, bench)


def test_a_belt_that_goes_back_meets_a_closed_gate_before_the_window_and_behind_it() -> None:
    part = Gate()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part)
        assert await belt.add(20, 10) == 0
        await belt.move(22)
        await belt.move(-5)
        assert not ctx.get(part.pin)
        await belt.move(5)
        assert ctx.get(part.pin)
        await belt.move(8)
        await belt.move(-6)  # the part has gone: what lies in its place is another
        await belt.rest(5)
        assert not ctx.get(part.pin)
        assert belt.open_at() == set(range(20, 30))

    simulate(part, bench)


def test_a_belt_that_stands_in_a_window_meets_a_gate_that_closes() -> None:
    part, overran = Gate(), []

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part, LIMIT)
        assert await belt.add(20, 10) == 0
        assert await belt.add(40, 10) == 0
        await belt.move(25, 1)
        for _ in range(LIMIT + 10):
            overran.append(int(ctx.get(part.overran)))
            await belt.rest(1)
        assert sum(belt.opened) == LIMIT
        assert sum(overran) == 1
        await belt.move(30)
        assert sum(belt.opened) == LIMIT, "what was queued behind it is gone as well"

    simulate(part, bench)


def test_positions_that_are_not_believed_open_nothing() -> None:
    part = Gate()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part)
        assert await belt.add(5, 10) == 0
        assert await belt.add(20, 10) == 0
        await belt.move(8)
        assert ctx.get(part.pin)
        ctx.set(part.distrusted, 1)
        await belt.rest(1)
        assert not ctx.get(part.pin)
        assert await belt.add(40, 10) == REFUSED_MOTION
        assert await belt.add(40, 0) == REFUSED_MOTION
        ctx.set(part.distrusted, 0)
        await belt.move(50)
        assert max(belt.open_at()) < 9

    simulate(part, bench)


def test_a_position_that_has_been_passed_is_refused() -> None:
    part = Gate()

    async def bench(ctx: Any) -> None:
        belt = Belt(ctx, part, 0)
        await belt.move(30)
        assert await belt.add(40, 5) == REFUSED_LONG  # no limit, no window
        ctx.set(part.limit, LIMIT)
        assert await belt.add(30, 5) == REFUSED_PAST
        assert await belt.add(31, 5) == 0
        assert await belt.add(36, 5) == REFUSED_OVERLAP
        assert await belt.add(37, 5) == 0
        await belt.move(20)
        assert belt.open_at() == {*range(31, 36), *range(37, 42)}

    simulate(part, bench)
