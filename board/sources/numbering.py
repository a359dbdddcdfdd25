"""The maker's numbers of parts: whatever they do, each trigger gets one verdict under a number of its own.

Numbers that begin again within a run are given a run of their own (`r7` goes on as `r7#2`), so that run and part id
name one part for ever. What was skipped gets verdicts, too, up to a bound; beyond it the loss is only counted.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace

from board.seams import LastPart
from protocol.messages import Trigger

KEPT_RUNS = 64  # whose numbers are remembered
MAX_FILLED = 256  # parts; a larger jump is a fault of the count rather than so many parts that went by unseen
MAX_NAME = 56  # characters of a run, so that there is room for the mark
_CONTINUED = re.compile(r"(.+)#(\d{1,6})", re.DOTALL)


@dataclass
class Run:
    next_id: int
    clock: str  # of its newest trigger
    newest_ns: int
    begun: int = 1  # how often its numbers have begun
    first_id: int = 0  # of the parts that were told here

    def name(self, run: str) -> str:
        return run if self.begun == 1 else f"{run[:MAX_NAME]}#{self.begun}"


class Numbering:
    def __init__(self, last: LastPart | None, clock: str, now_ns: int) -> None:
        """`last` has a verdict from before this start; what was triggered before `now_ns` up to it is known."""
        self.gaps = self.missing = self.restarts = 0
        self._runs: OrderedDict[str, Run] = OrderedDict()
        if last:
            self._runs[last.run] = Run(last.part_id + 1, clock, now_ns)
            continued = _CONTINUED.fullmatch(last.run)
            if continued:
                self._runs[continued[1]] = Run(last.part_id + 1, clock, now_ns, int(continued[2]))

    def place(self, trigger: Trigger) -> list[Trigger]:
        """The parts that it tells of, itself last, with the names that verdicts bear; none if it was told before.

        subtle: a number that was had before is a new part if its time is newer than all of the run.
        """
        run = self._remember(trigger.run, Run(trigger.part_id, trigger.clock, -1, first_id=trigger.part_id))
        is_newer = trigger.clock != run.clock or trigger.t_ns > run.newest_ns
        if trigger.part_id < run.next_id and not is_newer:
            return []
        if trigger.part_id < run.next_id:
            self.restarts += 1
            run.begun, run.next_id = run.begun + 1, trigger.part_id
        if is_newer:
            run.clock, run.newest_ns = trigger.clock, trigger.t_ns
        missing = self._fill(run, trigger)
        run.next_id = trigger.part_id + 1
        return [*missing, replace(trigger, run=run.name(trigger.run))]

    def end(self, run_name: str, parts: int, now: Trigger) -> list[Trigger]:
        """The parts that never came of a run that is over. Numbers that began again say nothing of them.

        subtle: its first ones may have come to a station that died before it said a word of them.
        """
        run = self._remember(run_name, Run(0, now.clock, -1))
        if run.begun > 1:
            return []
        at_the_end = self._fill(run, replace(now, run=run_name, part_id=parts))
        first, run.first_id = min(run.first_id, parts), 0
        return [*self._fill(Run(0, run.clock, -1), replace(now, run=run_name, part_id=first)), *at_the_end]

    def _remember(self, name: str, new: Run) -> Run:
        run = self._runs.setdefault(name, new)
        self._runs.move_to_end(name)
        if len(self._runs) > KEPT_RUNS:
            self._runs.popitem(last=False)
        return run

    def _fill(self, run: Run, trigger: Trigger) -> list[Trigger]:
        """What is missing before a trigger, as if it had come with it."""
        missing = range(run.next_id, trigger.part_id)
        run.next_id = max(run.next_id, trigger.part_id)
        if not missing:
            return []
        self.gaps += 1
        self.missing += len(missing)
        filled = missing if len(missing) <= MAX_FILLED else ()
        return [replace(trigger, run=run.name(trigger.run), part_id=part_id) for part_id in filled]
