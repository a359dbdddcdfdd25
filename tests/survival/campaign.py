"""Faults of a plant on the real station, a real broker and real sockets: `scripts/survive`.

Every part must have exactly one verdict at the subscriber, whatever broke. `lost` counts parts without one, `doubled`
parts with two different ones, `repeated` second copies of the same event (QoS 1 allows them), `overtaken` verdicts that
came after one of a later part (a replay is behind fresh verdicts by intent). The gap is between two verdicts. A verdict
that the broker acknowledged and took into its death unsent would count as lost too.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from protocol.errors import InputError, run_main
from protocol.messages import decode_verdict
from sim.relay import Link, Relay
from tests.survival.broker import MOSQUITTO, MortalBroker, Subscriber
from tests.survival.station import Belt, Station

TOPIC = "beltsight/sim/line1/verdict"


class Bench:
    """Station → relay → broker → subscribers."""

    def __init__(self, folder: Path, seed: int, opened: contextlib.ExitStack) -> None:
        self.broker = MortalBroker(folder, TOPIC)
        self.broker.start()
        opened.callback(self.broker.kill)
        self.relay = Relay(self.broker.settings.port, seed=seed)
        opened.callback(self.relay.close)
        self.readers = (self.broker.subscribe(), self.broker.read_along())
        for reader in self.readers:
            opened.callback(reader.close)
        self.station = Station(folder, self.relay.port)
        opened.callback(self.station.stop)
        self.belt: Belt | None = None


@dataclass
class Arrivals:
    """Of one run, at either reader: what a killed broker had acknowledged and passed on, one of them has read."""

    run: str
    events: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    order: list[int] = field(default_factory=list)  # of the first arrivals
    copies: int = 0  # at the reader of QoS 1
    latest_s: float = 0.0
    longest_gap_s: float = 0.0

    def take(self, reader: Subscriber, *, counts_copies: bool) -> None:
        for _ in range(reader.messages.qsize()):
            message = reader.next()
            verdict = decode_verdict(bytes(message.payload))
            if verdict.run == self.run:
                is_new = verdict.event_id not in self.events[verdict.part_id]
                self.copies += counts_copies
                if is_new:
                    self._note(verdict.part_id, verdict.event_id, message.timestamp)

    def _note(self, part_id: int, event_id: str, now_s: float) -> None:
        self.events[part_id].add(event_id)
        self.order.append(part_id)
        if self.latest_s:
            self.longest_gap_s = max(self.longest_gap_s, now_s - self.latest_s)
        self.latest_s = max(self.latest_s, now_s)

    @property
    def overtaken(self) -> int:
        newest, count = -1, 0
        for part_id in self.order:
            count += part_id < newest
            newest = max(newest, part_id)
        return count


@dataclass(frozen=True)
class Row:
    fault: str
    times: int
    parts: int
    lost: int
    doubled: int
    repeated: int
    overtaken: int
    longest_gap_s: float


def kill_broker(bench: Bench) -> None:
    bench.broker.kill()
    time.sleep(0.2)
    bench.broker.start()


def hold_broker(bench: Bench) -> None:
    bench.broker.hold(1.0)


def cut_link(bench: Bench) -> None:
    bench.relay.cut()


def slow_link(bench: Bench) -> None:
    with linked(bench, Link(delay_s=0.1, loss=0.05)):
        time.sleep(2.0)


def stall_link(bench: Bench) -> None:
    """And end it when it is mended, as both sides' TCP does after a long while."""
    with linked(bench, Link(stalled=True)):
        time.sleep(1.0)
        bench.relay.cut()


def kill_station(bench: Bench) -> None:
    bench.station.kill()
    bench.station.start()


def kill_station_on_dead_link(bench: Bench) -> None:
    """What it had sent and nobody acknowledged is gone with it: only the outbox knows of it."""
    with linked(bench, Link(stalled=True)):
        time.sleep(0.5)
        bench.station.kill()
        bench.relay.cut()
    bench.station.start()


def fill_disk(bench: Bench) -> None:
    bench.station.fill_disk(is_full=True)
    time.sleep(0.5)
    bench.station.fill_disk(is_full=False)


def unplug_camera(bench: Bench) -> None:
    if bench.belt:
        bench.belt.is_blind = True
        time.sleep(0.5)
        bench.belt.is_blind = False


@contextlib.contextmanager
def linked(bench: Bench, link: Link) -> Iterator[None]:
    bench.relay.link = link
    try:
        yield
    finally:
        bench.relay.link = Link()


# Name, fault, times in the short campaign and in the long one.
FAULTS: tuple[tuple[str, Callable[[Bench], None], int, int], ...] = (
    ("none", lambda _: None, 1, 1),
    ("broker killed", kill_broker, 2, 20),
    ("broker stands still 1 s", hold_broker, 1, 10),
    ("link cut", cut_link, 2, 50),
    ("link 200 ms, 5 % loss", slow_link, 1, 10),
    ("link dead 1 s, then cut", stall_link, 1, 10),
    ("station killed", kill_station, 2, 50),
    ("station killed, link dead", kill_station_on_dead_link, 1, 20),
    ("disk full 0.5 s", fill_disk, 2, 20),
    ("camera unplugged 0.5 s", unplug_camera, 2, 20),
)


@dataclass(frozen=True)
class Case:
    fault: str
    strike: Callable[[Bench], None]
    moments: list[int]  # parts at which it strikes
    parts: int
    rate_hz: float
    quiet_s: float = 30.0  # without a new verdict for so long, what is missing is lost


def run_case(bench: Bench, case: Case) -> Row:
    arrivals = Arrivals(f"run-{time.time_ns()}")
    bench.belt = Belt(bench.station.belt_port, arrivals.run, case.parts, case.rate_hz)
    for moment in case.moments:
        bench.belt.wait_for(moment)
        case.strike(bench)
    bench.belt.finish()
    wait_for_all(bench, case, arrivals)
    time.sleep(0.3)  # for copies, and for a second verdict of a part
    collect(bench, arrivals)
    return judge(case, arrivals)


def wait_for_all(bench: Bench, case: Case, arrivals: Arrivals) -> None:
    known, quiet_until_s = 0, time.monotonic() + case.quiet_s
    while len(arrivals.events) < case.parts and time.monotonic() < quiet_until_s:
        collect(bench, arrivals)
        if len(arrivals.order) > known:
            known, quiet_until_s = len(arrivals.order), time.monotonic() + case.quiet_s
        time.sleep(0.05)


def judge(case: Case, arrivals: Arrivals) -> Row:
    on_the_belt, seen = set(range(case.parts)), set(arrivals.events)
    contradicted = sum(len(events) > 1 for events in arrivals.events.values())
    return Row(
        fault=case.fault,
        times=len(case.moments),
        parts=case.parts,
        lost=len(on_the_belt - seen),
        doubled=contradicted + len(seen - on_the_belt),
        repeated=max(0, arrivals.copies - len(arrivals.order)),
        overtaken=arrivals.overtaken,
        longest_gap_s=arrivals.longest_gap_s,
    )


def collect(bench: Bench, arrivals: Arrivals) -> None:
    for number, reader in enumerate(bench.readers):
        arrivals.take(reader, counts_copies=number == 0)


def run_campaign(folder: Path, seed: int, *, long: bool, parts: int, rate: float, only: str = "") -> list[Row]:
    """Raises: InputError without mosquitto."""
    if not MOSQUITTO:
        raise InputError("mosquitto is not installed: apt-get install mosquitto")
    rng = random.Random(seed)
    rows = []
    with contextlib.ExitStack() as opened:
        bench = Bench(folder, seed, opened)
        for name, strike, short_times, long_times in FAULTS:
            times = long_times if long else short_times
            moments = sorted(rng.sample(range(parts // 10, parts * 9 // 10), times))
            if only in name:
                rows.append(run_case(bench, Case(name, strike, moments, parts, rate)))
    return rows


def show(rows: list[Row]) -> Table:
    headers = ("fault", "times", "parts", "lost", "doubled", "repeated", "overtaken", "longest gap, ms")
    table = Table(*headers, title="Verdicts at the subscriber")
    for row in rows:
        counts = (row.times, row.parts, row.lost, row.doubled, row.repeated, row.overtaken)
        table.add_row(row.fault, *map(str, counts), f"{row.longest_gap_s * 1e3:.0f}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/survive", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--long", action="store_true", help="20 to 50 times each fault, 5000 parts each")
    parser.add_argument("--seed", type=int, default=1, help="the same seed strikes at the same parts (default: 1)")
    parser.add_argument("--parts", type=int, help="of each fault (default: 120, with --long 5000)")
    parser.add_argument("--rate", type=float, default=60.0, help="parts a second (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only faults whose name has these words")
    options = parser.parse_args()
    parts = options.parts or (5000 if options.long else 120)
    with tempfile.TemporaryDirectory() as folder:
        rows = run_campaign(
            Path(folder), options.seed, long=options.long, parts=parts, rate=options.rate, only=options.only
        )
    Console(width=120).print(show(rows))
    return 1 if any(row.lost or row.doubled for row in rows) else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
