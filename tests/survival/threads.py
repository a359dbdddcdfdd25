"""Each thread of station, page, bridge and server ends once, and hangs once: `beltsight survive --each-thread`."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from rich.console import Console

from protocol.errors import InputError
from tests.survival import each_thread, host_threads
from tests.survival.each_thread import NEEDED, OTHERS, SEEN_WITHIN_S, Threads
from tests.survival.host_threads import HostThreads


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight survive --each-thread", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="programs side by side (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="NAME", help="the station's threads with this in their name")
    options = parser.parse_args()
    names = tuple(name for name in (*NEEDED, *OTHERS) if options.only in name)
    if not names:
        raise InputError(f"--only {options.only!r}: no thread of the station has that in its name")
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory())).resolve()
        station = list(Threads(folder, options.workers, opened).die_all(names))
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory())).resolve()
        host = [] if options.only else list(HostThreads(folder, options.workers, opened).die_all())
    deaths: list[each_thread.Death | host_threads.HostDeath] = [*station, *host]
    for death in deaths:
        if death.late_s > SEEN_WITHIN_S:
            death.violations.append("seen too late")
    console = Console()
    console.print(each_thread.show(station), host_threads.show(host), sep="\n")
    return int(any(death.violations for death in deaths))
