"""Which engines may speak, in which order, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from board.engines.fpga_pynq import FpgaSettings
from board.engines.fpga_sim import FpgaSimSettings
from board.engines.remote import RemoteSettings
from protocol.strict import require

EngineName = Literal["fpga", "fpga-sim", "arm", "remote"]


@dataclass(frozen=True)
class EngineSettings:
    order: tuple[EngineName, ...] = ("arm",)
    runtime: Literal["auto", "kernels", "onnxruntime", "opencv"] = "auto"  # of the ARM engine: the first there is
    onnx_library: Path | None = None  # libonnxruntime.so where there is no Python package; None: sherpa-onnx-core's
    backbones: Path | None = None  # folder of backbones, for models that were taught without carrying their own
    threads: int = 1
    self_test_every: int = 1000  # parts between two golden self-tests; 0: only at start
    retry_s: float = 5.0  # how long a failed engine is left alone before its self-test is tried again
    fpga: FpgaSettings = field(default_factory=FpgaSettings)
    fpga_sim: FpgaSimSettings = field(default_factory=FpgaSimSettings)
    remote: RemoteSettings = field(default_factory=RemoteSettings)

    def __post_init__(self) -> None:
        require(bool(self.order), "order", "must name at least one engine")
        require(len(set(self.order)) == len(self.order), "order", "must not name an engine twice")
        require(1 <= self.threads <= 64, "threads", "must be 1..64")
        require(self.self_test_every >= 0, "self_test_every", "must be 0 or more")
        require(self.retry_s > 0, "retry_s", "must be above 0")
