"""Faults of a plant on the real station, a real broker and real sockets: `beltsight survive`.

Every part must have exactly one verdict at the subscriber, whatever broke. `lost` counts parts without one, `doubled`
parts with two different ones, `repeated` second copies of the same event (QoS 1 allows them), `overtaken` verdicts that
came after one of a later part (a replay is behind fresh verdicts by intent). The gap is between two verdicts. A verdict
that the broker acknowledged and took into its death unsent would count as lost too. The gate may open for an OK part
alone, once, and at its place; a part for which it stays closed is rejected, which a killed station does.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from host.export.trivial import write_trivial_package
from protocol.errors import InputError, run_main
from protocol.messages import Verdict, decode_verdict
from sim.relay import Link, Relay
from tests.survival import crossing, each_call, threads
from tests.survival.broker import MOSQUITTO, MortalBroker, Subscriber
from tests.survival.gate import GateLog, Opening
from tests.survival.server import MortalServer
from tests.survival.station import GATE_OPENS_S, LIBFAKETIME, Belt, Station

TOPIC = "beltsight/sim/line1/verdict"
JUDGED_WITHIN_S = 60.0  # a station that was started anew on a busy machine


class Bench:
    """Server → station → relay → broker → subscribers. Without `served` the station judges by itself."""

    def __init__(self, folder: Path, seed: int, opened: contextlib.ExitStack, *, served: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        write_trivial_package(folder / "models" / "trivial")
        self.gate = GateLog(folder / "gate.jsonl")
        opened.callback(self.gate.close)
        self.server = MortalServer(folder) if served else None
        if self.server:
            opened.callback(self.server.close)
        self.broker = MortalBroker(folder, TOPIC)
        self.broker.start()
        opened.callback(self.broker.kill)
        self.relay = Relay(self.broker.settings.port, seed=seed)
        opened.callback(self.relay.close)
        self.readers = (self.broker.subscribe(), self.broker.read_along())
        for reader in self.readers:
            opened.callback(reader.close)
        self.station = Station(folder, self.relay.port, self.server.port if self.server else None)
        opened.callback(self.station.stop)
        self.belt: Belt | None = None
        self.arrivals = Arrivals("")

    def wait_for_verdict(self, part: int) -> None:
        """Or for the time in which it should have come."""
        deadline_s = time.monotonic() + JUDGED_WITHIN_S
        while part not in self.arrivals.events and time.monotonic() < deadline_s:
            time.sleep(0.02)
            collect(self, self.arrivals)


@dataclass
class Arrivals:
    """Of one run, at either reader: what a killed broker had acknowledged and passed on, one of them has read."""

    run: str
    events: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    passed: set[int] = field(default_factory=set)  # parts that are OK
    engines: Counter[str] = field(default_factory=Counter)
    times: list[str] = field(default_factory=list)  # of the station's wall clock
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
                    self._note(verdict, message.timestamp)

    def _note(self, verdict: Verdict, now_s: float) -> None:
        self.events[verdict.part_id].add(verdict.event_id)
        self.order.append(verdict.part_id)
        self.engines[verdict.engine] += 1
        self.times.append(verdict.time)
        if verdict.decision == "OK":
            self.passed.add(verdict.part_id)
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
    opened: int  # parts for which the gate opened
    misplaced: int  # openings for a part that is not OK, or a second one for the same part
    gate_off_s: float  # the largest distance in time between a part's opening and its place
    arrivals: Arrivals


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


def kill_server(bench: Bench) -> None:
    if bench.server:
        bench.server.kill()
        time.sleep(0.5)
        bench.server.start()


def falsify_answers(bench: Bench) -> None:
    """The golden self-test finds it; until then wrong maps are judged."""
    if bench.server:
        bench.server.lies = True
        time.sleep(1.0)
        bench.server.lies = False
        time.sleep(1.0)  # it is trusted again


def step_clock(bench: Bench) -> None:
    """While parts are on their way, and more come after it: those are judged at the new hour, however late."""
    if bench.belt:
        with bench.belt.metered() as let_come:
            if not bench.station.steps_clock:
                bench.station.stop()
                bench.station.start(steps_clock=True)
            for offset_s in (3600, -3600, 0):
                let_come(1)
                bench.station.step_clock(offset_s)
                let_come(1)
                bench.wait_for_verdict(bench.belt.sent - 1)


def spoil_outbox(bench: Bench) -> None:
    bench.station.kill()
    bench.station.spoil_outbox()
    bench.station.start()


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
    ("outbox unwritable", spoil_outbox, 1, 20),
    # The last: what follows would have a slower station.
    *([("clock stepped by 1 h", step_clock, 1, 20)] if LIBFAKETIME else []),
)
# With a detection server as the first engine.
SERVER_FAULTS: tuple[tuple[str, Callable[[Bench], None], int, int], ...] = (
    ("server killed", kill_server, 1, 20),
    ("server answers wrongly 1 s", falsify_answers, 1, 20),
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
    bench.belt, bench.arrivals = Belt(bench.station.belt_port, arrivals.run, case.parts, case.rate_hz), arrivals
    began_ns = time.monotonic_ns()
    for moment in case.moments:
        bench.belt.wait_for(moment)
        case.strike(bench)
    bench.belt.finish()
    wait_for_all(bench, case, arrivals)
    last_s = bench.belt.t_ns[-1] / 1e9 + GATE_OPENS_S - time.monotonic()
    time.sleep(max(0.0, last_s) + 0.3)  # for the gate, for copies, and for a second verdict of a part
    collect(bench, arrivals)
    openings = [opening for opening in bench.gate.openings() if opening.t_ns > began_ns]
    return judge(case, arrivals, openings, bench.belt.t_ns)


def wait_for_all(bench: Bench, case: Case, arrivals: Arrivals) -> None:
    known, quiet_until_s = 0, time.monotonic() + case.quiet_s
    while len(arrivals.events) < case.parts and time.monotonic() < quiet_until_s:
        collect(bench, arrivals)
        if len(arrivals.order) > known:
            known, quiet_until_s = len(arrivals.order), time.monotonic() + case.quiet_s
        time.sleep(0.05)


def judge(case: Case, arrivals: Arrivals, openings: list[Opening], triggers_ns: list[int]) -> Row:
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
        opened=len({opening.part_id for opening in openings}),
        misplaced=sum(opening.part_id not in arrivals.passed for opening in openings)
        + len(openings)
        - len({opening.part_id for opening in openings}),
        gate_off_s=max(
            (abs((opening.t_ns - triggers_ns[opening.part_id]) / 1e9 - GATE_OPENS_S) for opening in openings),
            default=0.0,
        ),
        arrivals=arrivals,
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
    for faults, served in ((FAULTS, False), (SERVER_FAULTS, True)):
        if not any(only in name for name, *_ in faults):
            continue
        with contextlib.ExitStack() as opened:
            bench = Bench(folder / ("served" if served else "alone"), seed, opened, served=served)
            for name, strike, short_times, long_times in faults:
                times = long_times if long else short_times
                moments = sorted(rng.sample(range(parts // 10, parts * 9 // 10), times))
                if only in name:
                    rows.append(run_case(bench, Case(name, strike, moments, parts, rate)))
    return rows


def show(rows: list[Row]) -> Table:
    headers = ("fault", "times", "parts", "lost", "doubled", "repeated", "overtaken", "longest gap, ms")
    gate = ("opened", "misplaced", "gate off, ms")
    table = Table(*headers, *gate, title="Verdicts at the subscriber, openings of the gate (link by a relay, no netem)")
    for row in rows:
        counts = (row.times, row.parts, row.lost, row.doubled, row.repeated, row.overtaken)
        times = (f"{row.longest_gap_s * 1e3:.0f}", row.opened, row.misplaced, f"{row.gate_off_s * 1e3:.1f}")
        table.add_row(row.fault, *map(str, (*counts, *times)))
    if not LIBFAKETIME:
        table.caption = "no stepped clock: apt-get install faketime"
    return table


def main() -> int:
    others = {"--each-call": each_call.main, "--each-thread": threads.main, "--crossing": crossing.main}
    for option, run_other in others.items():
        if option in sys.argv:
            sys.argv.remove(option)
            return run_other()
    parser = argparse.ArgumentParser(prog="beltsight survive", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--each-call", action="store_true", help="instead: each call of the station fails once")
    parser.add_argument("--each-thread", action="store_true", help="instead: each of its threads ends once, and hangs")
    parser.add_argument("--crossing", action="store_true", help="instead: what crosses the gate, 200,000 parts a kind")
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
    Console(width=150).print(show(rows))
    return 1 if any(row.lost or row.doubled or row.misplaced for row in rows) else 0


if __name__ == "__main__":
    sys.exit(run_main(main))
