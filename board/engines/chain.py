"""The engines in the configured order: the best one that passes its self-test speaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from board.engines.fpga import Logic, load_program
from board.engines.fpga_pynq import find_logic, open_fpga
from board.engines.fpga_sim import open_fpga_sim
from board.engines.remote import START_WITHIN_S, RemoteServer
from board.engines.settings import EngineName, EngineSettings
from board.engines.taught import open_taught
from board.seams import Engine, Files
from board.teaching.store import BANK_NPZ
from protocol.errors import BeltsightError, EngineError
from protocol.manifest import CARRIED_ONNX, MODEL_ONNX, Golden, Package

PATIENCE = 5  # times as long as a golden picture took
OpenEngine = Callable[[EngineName], Engine]


@dataclass
class _Slot:
    name: EngineName
    engine: Engine | None = None  # None while it is left alone
    retry_at_s: float = 0.0
    trouble: str = ""


class EngineChain:
    """Each engine must give the golden maps bit for bit before it may speak, and again every `self_test_every` parts.

    A failing engine is left, the next in the order speaks; after `retry_s` the better one is tried again.
    """

    def __init__(self, settings: EngineSettings, golden: Golden, open_engine: OpenEngine) -> None:
        """Raises: EngineError if no engine passes."""
        self._settings = settings
        self._golden = golden
        self._open = open_engine
        self._slots = [_Slot(name) for name in settings.order]
        self._parts = 0
        self._slowest_s = 0.0
        self._revive()
        if self.speaker is None:
            raise EngineError(f"no engine passes its self-test: {self.trouble}")

    @property
    def speaker(self) -> Engine | None:
        return self._speaking.engine if self._speaking else None

    @property
    def degraded(self) -> bool:
        """Whether another than the first engine of the order would speak."""
        return self._slots[0].engine is None

    @property
    def most_s(self) -> float:
        """How long a part may keep the engines busy: by their self-tests, and by the deadline of a server."""
        remote_s = self._settings.remote.deadline_ms / 1e3 if "remote" in self._settings.order else 0.0
        return remote_s + PATIENCE * self._slowest_s

    @property
    def trouble(self) -> str:
        return "; ".join(f"{slot.name}: {slot.trouble}" for slot in self._slots if slot.engine is None)

    def infer(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.int8], str]:
        """The anomaly map and the name of the engine that gave it. Raises: EngineError when all fail."""
        self._revive()
        self._test_speaker_when_due()
        for _ in self._slots:  # an engine that fails makes way for the next, which judges the same part
            slot = self._speaking
            if slot is None or slot.engine is None:
                break
            try:
                return self._checked_map(slot.engine, image), slot.engine.name
            except EngineError as error:
                self._leave(slot, str(error))
                self._revive()
        raise EngineError(f"every engine failed: {self.trouble}")

    def close(self) -> None:
        for slot in self._slots:
            if slot.engine:
                slot.engine.close()

    @property
    def _speaking(self) -> _Slot | None:
        return next((slot for slot in self._slots if slot.engine), None)

    def _revive(self) -> None:
        """Try the engines that are better than the speaker and whose time has come."""
        for slot in self._slots:
            if slot.engine is None and time.monotonic() >= slot.retry_at_s:
                self._try(slot)
            if slot.engine is not None:
                return

    def _try(self, slot: _Slot) -> None:
        try:
            slot.engine = self._open(slot.name)
            self._self_test(slot.engine)
        except BeltsightError as error:
            self._leave(slot, str(error))

    def _test_speaker_when_due(self) -> None:
        every = self._settings.self_test_every
        self._parts += 1
        if not every or self._parts % every:
            return
        slot = self._speaking
        if slot is None or slot.engine is None:
            return
        try:
            self._self_test(slot.engine)
        except EngineError as error:
            self._leave(slot, str(error))
            self._revive()

    def _self_test(self, engine: Engine) -> None:
        for image, expected in zip(self._golden.images, self._golden.maps, strict=True):
            started_s = time.monotonic()
            equal = np.array_equal(self._checked_map(engine, image), expected)
            self._slowest_s = max(self._slowest_s, time.monotonic() - started_s)
            if not equal:
                raise EngineError(f"{engine.name} does not give the model's golden map")

    def _checked_map(self, engine: Engine, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        anomaly = engine.infer(image)
        if anomaly.dtype != np.int8 or anomaly.shape != self._golden.maps.shape[1:]:
            raise EngineError(f"{engine.name} gave a map of {anomaly.dtype} {anomaly.shape}")
        return anomaly

    def _leave(self, slot: _Slot, trouble: str) -> None:
        if slot.engine:
            slot.engine.close()
        slot.engine = None
        slot.trouble = trouble
        slot.retry_at_s = time.monotonic() + self._settings.retry_s


def open_engine(
    name: EngineName,
    package: Package,
    settings: EngineSettings,
    *,
    remote: RemoteServer | None = None,
    logic: Logic | None = None,
) -> Engine:
    """`logic` is shared by all models of this board. Raises: EngineError, ManifestError or ProgramError."""
    if name == "remote":
        if remote is None:
            raise EngineError("no connection to a server was opened")
        return remote.open_engine()
    if BANK_NPZ in package.manifest.files:
        return open_taught(
            package.path(BANK_NPZ), settings.backbones, lambda files: open_own(name, files, settings, logic)
        )
    return open_own(name, package, settings, logic)


def open_own(name: EngineName, files: Files, settings: EngineSettings, logic: Logic | None) -> Engine:
    """One of this station's."""
    if name == "arm":
        return open_arm(files, settings)
    program = load_program(files)
    if name == "fpga":
        return open_fpga(program, settings.fpga, logic or find_logic(settings.fpga))
    return open_fpga_sim(program, settings.fpga_sim)


def connect_remote(package: Package, settings: EngineSettings) -> RemoteServer | None:
    """The server's connection if an engine of the order needs it. Blocks for at most `START_WITHIN_S`.

    Raises: InputError for keys or an endpoint that cannot be used.
    """
    if "remote" not in settings.order:
        return None
    remote = RemoteServer(settings.remote, package)
    remote.reach(START_WITHIN_S)
    return remote


def open_arm(files: Files, settings: EngineSettings) -> Engine:
    """Our own kernels where they were built, else ONNX Runtime, else OpenCV's dnn: equal integers whichever it is."""
    if settings.runtime in ("auto", "kernels"):
        from board.engines.kernels.engine import KernelEngine, find_library  # noqa: PLC0415 - each driver where used

        library = find_library()
        if library:
            return KernelEngine(files.path(MODEL_ONNX), library)
        if settings.runtime == "kernels":
            raise EngineError("the kernels were not built for this processor: `beltsight kernels`")
    if settings.runtime in ("auto", "onnxruntime"):
        engine = _open_onnx_runtime(files, settings)
        if engine:
            return engine
        if settings.runtime == "onnxruntime":
            raise EngineError("ONNX Runtime is not installed: pip install onnxruntime (32-bit ARM: sherpa-onnx-core)")
    from board.engines.opencv_dnn import OpenCvEngine  # noqa: PLC0415

    return OpenCvEngine(files.path(CARRIED_ONNX), settings.threads)


def _open_onnx_runtime(files: Files, settings: EngineSettings) -> Engine | None:
    """As a Python package, or as the plain library that there is for 32-bit ARM; None without either."""
    from board.engines.onnx_c import OnnxCEngine, find_library  # noqa: PLC0415
    from board.engines.onnx_runtime import OnnxRuntimeEngine  # noqa: PLC0415

    library = settings.onnx_library or find_library()
    if library:
        return OnnxCEngine(files.path(CARRIED_ONNX), settings.threads, library)
    try:
        return OnnxRuntimeEngine(files.path(MODEL_ONNX), settings.threads)
    except ImportError:
        return None
