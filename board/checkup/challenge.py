"""Does the model find its known-bad parts at the line's own threshold, and when was it last tried with real ones?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from board.alarms.challenge import ChallengeSettings, is_due, recall
from board.checkup.finding import Finding, fail, ok, refused, warn
from board.config import LineConfig
from board.engines.chain import EngineChain
from board.models.known_bad import KnownBad
from board.records.audit import AuditLog
from protocol.errors import InputError
from protocol.manifest import Package

SHOWN_S = 20.0


def check_known_bad(config: LineConfig, package: Package, engines: EngineChain) -> Finding:
    """Shown to an engine as at the station's start."""
    known_bad = KnownBad(package, config.challenge.least_share)
    known_bad.show_all(engines, SHOWN_S)
    threshold = package.manifest.threshold.value if config.threshold is None else config.threshold
    found = f"finds {known_bad.found(threshold)} of {known_bad.frames} at threshold {threshold:g}"
    if known_bad.fault(threshold):
        return fail("known-bad parts", found, f"it must be {known_bad.fewest}: lower the threshold, or train again")
    if known_bad.remark():
        return warn("known-bad parts", known_bad.remark(), "until then nothing proves that it rejects a bad part")
    return ok("known-bad parts", found)


def check_challenge(settings: ChallengeSettings) -> Iterator[Finding]:
    """Nothing where nobody asked for challenges with real parts."""
    if not settings.due_every_h:
        return
    if settings.audit is None:
        yield warn("challenge", "its results are forgotten at a restart", "set [challenge] audit")
        return
    try:
        last = recall(AuditLog(settings.audit))
    except InputError as error:
        yield refused("challenge", error)
        return
    if last and last.failed:
        yield fail("challenge", f"the last one failed at {last.time}", "nothing passes until another one is passed")
    elif is_due(last, settings.due_every_h, time.time()):
        yield warn("challenge", "one with real known-bad parts is due", "command `challenge`, put them on the belt")
    else:
        yield ok("challenge", f"passed at {last.time}" if last else "none is due")
