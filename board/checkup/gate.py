"""Checks of the gate's settings: what nobody would notice before a bad part is through."""

from __future__ import annotations

from collections.abc import Iterator

from board.checkup.finding import Finding, ok, warn
from board.config import LineConfig
from board.gate.keeper import choose_motion

MEASURED = {
    "encoder": "the belt's encoder says where each part is",
    "barriers": "two light barriers time each part",
    "view": "the camera's view shows how the belt runs",
}


def check_gate(config: LineConfig) -> Iterator[Finding]:
    yield _check_motion(config)
    if config.gate.kind == "gpio":
        found = "gpio: a pin stays open while the whole machine stands still"
        yield warn("gate", found, 'kind = "timer" closes by itself; or let a relay with a time limit follow the pin')
        return
    yield ok("gate", config.gate.kind)


def _check_motion(config: LineConfig) -> Finding:
    origin = choose_motion(config.motion, config.mode)
    if origin != "nothing":
        return ok("belt", MEASURED[origin])
    found = f"nothing measures it: at another speed than {config.belt_speed_mm_s:g} mm/s bad parts pass"
    if config.motion.by is None:
        return warn("belt", found, 'set [motion] by = "encoder" or "barriers"; or "nothing", on your own word')
    return warn("belt", f"{found} ([motion] says so)", 'set [motion] by = "encoder" or "barriers"')
