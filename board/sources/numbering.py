"""The maker's numbers of parts: whatever they do, each trigger gets one verdict under a number of its own.

Numbers that begin again within a run are given a run of their own (`r7` goes on as `r7#2`), so that run and part id
name one part for ever. What was skipped gets verdicts, too, up to a bound; beyond it the loss is only counted.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from board.seams import LastPart
from protocol.messages import Trigger

KEPT_RUNS = 64  # whose numbers are remembered
KEPT_TOLD = 32  # triggers of a run of which a second copy may come
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
    judged_ns: int = -1  # whatever was triggered until then has its verdict, from before this start
    told: OrderedDict[int, int | None] = field(default_factory=OrderedDict)  # number -> its stamp; None: any is a copy

    def name(self, run: str) -> str:
        return run if self.begun == 1 else f"{run[:MAX_NAME]}#{self.begun}"

    def is_newer(self, trigger: Trigger) -> bool:
        return trigger.clock != self.clock or trigger.t_ns > self.newest_ns

    def was_told(self, trigger: Trigger) -> bool:
        """Whether it is a second copy."""
        if trigger.t_ns <= self.judged_ns:
            return True
        return trigger.part_id in self.told and self.told[trigger.part_id] in (None, trigger.t_ns)

    def note(self, part_id: int, t_ns: int | None) -> None:
        self.told[part_id] = t_ns
        self.told.move_to_end(part_id)
        if len(self.told) > KEPT_TOLD:
            self.told.popitem(last=False)


class Numbering:
    def __init__(self, last: LastPart | None, clock: str, now_ns: int) -> None:
        """`last` has a verdict from before this start; what was triggered before `now_ns` up to it is known."""
        self.gaps = self.missing = self.restarts = 0
        self._clock = clock
        self._runs: OrderedDict[str, Run] = OrderedDict()
        if last:
            self._runs[last.run] = Run(last.part_id + 1, clock, now_ns, judged_ns=now_ns)
            continued = _CONTINUED.fullmatch(last.run)
            if continued:
                self._runs[continued[1]] = Run(last.part_id + 1, clock, now_ns, int(continued[2]), judged_ns=now_ns)

    def falls_back(self, trigger: Trigger) -> bool:
        """Its stamp lies before that of a part that came before it; of our own clock, or is the same."""
        run = self._runs.get(trigger.run)
        if run is None or trigger.clock != run.clock:
            return False
        return trigger.t_ns < run.newest_ns or (trigger.t_ns == run.newest_ns and trigger.clock == self._clock)

    def place(self, trigger: Trigger, *, is_frame: bool = False) -> list[Trigger]:
        """The parts that it tells of, itself last, with the names that verdicts bear; none if it was told before.

        subtle: a number that was had before is a new part if its time is newer than all of the run, or if it is no copy
        of one told of late. A frame (`is_frame`) may be stamped anew: an older one is always of a part that was had.
        """
        run = self._remember(trigger.run, Run(trigger.part_id, trigger.clock, -1, first_id=trigger.part_id))
        is_newer = run.is_newer(trigger)
        if trigger.part_id < run.next_id:
            if not is_newer and (is_frame or run.was_told(trigger)):
                return []
            self.restarts += 1
            run.begun, run.next_id = run.begun + 1, trigger.part_id
            run.told.clear()
        if trigger.clock != run.clock:
            run.judged_ns = -1  # of another clock
        if is_newer:
            run.clock, run.newest_ns = trigger.clock, trigger.t_ns
        missing = self._fill(run, trigger)
        run.next_id = trigger.part_id + 1
        run.note(trigger.part_id, trigger.t_ns)
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
        for part_id in filled:
            run.note(part_id, None)
        return [replace(trigger, run=run.name(trigger.run), part_id=part_id) for part_id in filled]
