"""One model at work: from a frame's picture to its anomaly map and score."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from board.engines.chain import EngineChain
from board.engines.remote import RemoteServer
from board.models.known_bad import AT_START_S, KnownBad
from board.models.light import Light
from board.preprocess import preprocess
from board.score import score_map
from protocol.errors import EngineError, InputError
from protocol.manifest import Package
from protocol.units import NS_PER_MS


@dataclass
class Finding:
    """What inspection of one frame brought; `reason` says why there is no score."""

    score: float | None = None
    anomaly: NDArray[np.int8] | None = None
    engine: str = ""
    reason: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)


class Inspector:
    def __init__(
        self,
        package: Package,
        engines: EngineChain,
        remote: RemoteServer | None = None,
        least_share: float | None = None,
    ) -> None:
        """Takes over the engines, and the connection that one of them uses. `least_share`: see `KnownBad`.

        Raises: ManifestError.
        """
        self.package, self.manifest, self.engines = package, package.manifest, engines
        self._remote = remote
        self.light = Light(self.manifest.calibration)
        self.known_bad = KnownBad(package, least_share)
        self.known_bad.show_all(engines, AT_START_S)

    def show_known_bad(self) -> bool:
        """The next known-bad frame to the engines; False if none spoke."""
        return self.known_bad.show_next(self.engines)

    def inspect(self, image: NDArray[np.uint8], finding: Finding) -> None:
        """Fill in the finding from a frame uint8 (h, w, 3)."""
        started_ns = time.monotonic_ns()
        try:
            picture = preprocess(image, self.manifest.preprocess)
            finding.reason = self.light.fault(picture)
            ready_ns = time.monotonic_ns()
            finding.stages_ms["preprocess"] = (ready_ns - started_ns) / NS_PER_MS
            if finding.reason:
                return
            finding.anomaly, finding.engine = self.engines.infer(picture)
            finding.stages_ms["infer"] = (time.monotonic_ns() - ready_ns) / NS_PER_MS
        except (InputError, EngineError) as error:
            finding.reason = str(error)
            return
        finding.score = score_map(finding.anomaly, self.manifest.map)

    def close(self) -> None:
        self.engines.close()
        if self._remote:
            self._remote.close()
