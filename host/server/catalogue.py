"""Which version of each model speaks, and which versions the workers should hold.

A model is loaded when somebody first asks for it. When its folder changes, the new version is loaded beside the old one
and takes over once every worker has it and found its golden maps; until then, and if it is broken, the old one speaks.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Literal

from host.server.models import Version

State = Literal["loading", "ready", "broken"]
Held = Mapping[str, State]  # what one worker holds, by digest
HELD_S = 10.0  # for so long after it was last asked for, a model is in use
DISPLACE_EVERY_S = 10.0
MAX_OWNERS = 1024  # that are remembered
MAX_DEATHS = 3  # workers that may die while they load a version before it is given up


class Catalogue:
    def __init__(self, max_loaded: int) -> None:
        self._max_loaded = max_loaded
        self._current: dict[str, Version] = {}
        self._candidates: dict[str, Version] = {}
        self._old: dict[str, Version] = {}  # by digest: replaced, some requests still wait for them
        # by id, the latest asked for last: who asked, and when last
        self._demanded: OrderedDict[str, dict[bytes, float]] = OrderedDict()
        self._displaced_s: dict[bytes, float] = {}  # when an owner last had another model make way
        self._deaths: dict[str, int] = {}

    def find(self, model: str) -> Version | None:
        return self._current.get(model)

    def demand(self, version: Version, owner: bytes = b"", now_s: float = 0.0, *, is_ping: bool = False) -> bool:
        """The owner asks for it: the workers should hold it. False if there is no place for it.

        An owner has half of the places at most, and models in use make way only for who has fewer, and seldom: loading
        takes the workers' time from everybody.
        """
        if version.id not in self._demanded:
            if not self._may_add(owner, now_s, is_ping=is_ping):
                return False
            self._demanded[version.id] = {}
        asked = self._demanded[version.id]
        if len(asked) > MAX_OWNERS:
            asked.clear()
        asked[owner] = now_s
        self._demanded.move_to_end(version.id)
        return True

    def _may_add(self, owner: bytes, now_s: float, *, is_ping: bool) -> bool:
        held = self._held_by_owner(now_s)
        has_room = len(self._demanded) < self._max_loaded and held.get(owner, 0) < max(2, self._max_loaded // 2)
        if has_room:
            return True
        victim = None
        if now_s - self._displaced_s.get(owner, -math.inf) >= DISPLACE_EVERY_S:
            victim = self._find_victim(owner, held, now_s, only_idle=is_ping)
        if victim is None:
            return False
        if len(self._displaced_s) > MAX_OWNERS:
            self._displaced_s.clear()
        self._displaced_s[owner] = now_s
        del self._demanded[victim]
        return True

    def _held_by_owner(self, now_s: float) -> dict[bytes, int]:
        held: dict[bytes, int] = {}
        for asked in self._demanded.values():
            for owner in _recent(asked, now_s):
                held[owner] = held.get(owner, 0) + 1
        return held

    def _find_victim(self, owner: bytes, held: Mapping[bytes, int], now_s: float, *, only_idle: bool) -> str | None:
        unused = [model for model in self._demanded if model not in self._current or not self._current[model].users]
        idle = next((model for model in unused if not _recent(self._demanded[model], now_s)), None)
        if idle is not None or only_idle or not held:
            return idle
        most = max(held, key=lambda one: (held[one], one == owner))
        if most != owner and held[most] <= held.get(owner, 0) + 1:
            return None
        return next((model for model in unused if _recent(self._demanded[model], now_s) == [most]), None)

    def update(self, found: Mapping[str, Version]) -> list[Version]:
        """Take over what the folder holds now; the versions that are new."""
        for model in self._current.keys() - found.keys():
            self._retire(self._current.pop(model))
            self._candidates.pop(model, None)
        fresh = [version for version in found.values() if not self._is_known(version)]
        for version in fresh:
            if version.id in self._current and version.id in self._demanded:
                self._candidates[version.id] = version
            else:
                self._current[version.id] = version
        for model, version in found.items():
            if model in self._current and self._current[model].digest == version.digest:  # back to what it was
                self._candidates.pop(model, None)
        return fresh

    def wanted(self) -> dict[str, Version]:
        """What every worker should hold, by digest."""
        for model in self._demanded.keys() - self._current.keys():
            del self._demanded[model]
        self._old = {digest: version for digest, version in self._old.items() if version.users}
        versions = [self._current[model] for model in self._demanded if model in self._current]
        versions += [*self._candidates.values(), *self._old.values()]
        return {version.digest: version for version in versions if not version.fault}

    def settle(self, workers: Collection[Held]) -> tuple[list[Version], list[Version]]:
        """Versions that take over, and versions that turn out broken, given what the workers hold."""
        taken_over, broken = [], []
        for version in list(self._candidates.values()):
            states = {held.get(version.digest, "loading") for held in workers}
            if version.fault or "broken" in states:
                version.fault = version.fault or "does not load, or does not give its golden maps"
                del self._candidates[version.id]
                broken.append(version)
            elif states == {"ready"}:
                del self._candidates[version.id]
                self._retire(self._current[version.id])
                self._current[version.id] = version
                taken_over.append(version)
        for version in self._current.values():
            if not version.fault and workers and all(held.get(version.digest) == "broken" for held in workers):
                version.fault = "does not load, or does not give its golden maps"
                broken.append(version)
        return taken_over, broken

    def note_death(self, digest: str) -> None:
        """A worker died while it loaded this version."""
        self._deaths[digest] = self._deaths.get(digest, 0) + 1
        version = self.wanted().get(digest)
        if version is not None and self._deaths[digest] >= MAX_DEATHS:
            version.fault = f"{MAX_DEATHS} workers died while they loaded it"

    def _is_known(self, version: Version) -> bool:
        known = (self._current.get(version.id), self._candidates.get(version.id))
        return version.fault != "" or any(one is not None and one.digest == version.digest for one in known)

    def _retire(self, version: Version) -> None:
        self._old[version.digest] = version


def _recent(asked: Mapping[bytes, float], now_s: float) -> list[bytes]:
    return [owner for owner, at_s in asked.items() if now_s - at_s < HELD_S]
