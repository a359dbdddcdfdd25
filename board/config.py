"""The line's configuration: one TOML file, checked strictly, every refusal with file and line."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from board.alarms.alarms import AlarmSettings
from board.alarms.challenge import ChallengeSettings
from board.drift.watch import DriftSettings
from board.engines.settings import EngineSettings
from board.gate.motion import MotionSettings
from board.gate.settings import GateSettings
from board.log import LogSettings
from board.models.change import ModelChangeSettings
from board.sinks.metrics import MetricsSettings
from board.sinks.mqtt import MqttSettings
from board.sinks.recorder import RecorderSettings
from board.sinks.second_opinion import SecondOpinionSettings
from board.sinks.tap import TapSettings
from board.sources.belt import BeltSettings
from board.sources.camera import CameraSettings
from board.sources.checks import FrameSettings
from board.sources.replay import ReplaySettings
from board.sources.tracked import TrackerSettings
from protocol.broker import BrokerSettings
from protocol.errors import ConfigError
from protocol.streams import is_topic_level
from protocol.strict import FieldError, build, require

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CONFIG_BYTES = 1 << 20
SPEED_MM_S = (0.1, 100_000.0)  # a part's way to the gate takes seconds, not years


@dataclass(frozen=True)
class LineConfig:
    """Relative paths in the file are relative to the file's folder."""

    model: str  # id of a folder under models_dir
    site: str = "plant"
    line: str = "line1"
    models_dir: Path = Path("../models")
    trusted_keys: Path | None = None  # folder of NAME.public.pem: only models that one of them signed are taken
    source: Literal["belt", "camera", "replay"] = "belt"
    mode: Literal["triggered", "free-running"] = "triggered"
    threshold: float | None = None  # None: the model's own
    belt_speed_mm_s: float = 400.0
    panel: bool = False  # the board's LEDs show the state, its buttons pause and resume
    belt: BeltSettings = field(default_factory=BeltSettings)
    camera: CameraSettings = field(default_factory=CameraSettings)
    replay: ReplaySettings = field(default_factory=ReplaySettings)
    frames: FrameSettings = field(default_factory=FrameSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    engines: EngineSettings = field(default_factory=EngineSettings)
    model_change: ModelChangeSettings = field(default_factory=ModelChangeSettings)
    challenge: ChallengeSettings = field(default_factory=ChallengeSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    tap: TapSettings = field(default_factory=TapSettings)
    recorder: RecorderSettings = field(default_factory=RecorderSettings)
    drift: DriftSettings = field(default_factory=DriftSettings)
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    second_opinion: SecondOpinionSettings | None = None  # of [engines.remote]'s server, near the threshold

    def __post_init__(self) -> None:
        require(is_topic_level(self.site), "site", "must be a name without spaces, '/', '+', '#' or '$'")
        require(is_topic_level(self.line), "line", "must be a name without spaces, '/', '+', '#' or '$'")
        require(bool(re.fullmatch(r"[\w][\w.-]*", self.model)), "model", "must be the name of a folder in models_dir")
        low, high = SPEED_MM_S
        require(low <= self.belt_speed_mm_s <= high, "belt_speed_mm_s", f"must be {low:g}..{high:g}")
        triggered_camera = self.source == "camera" and self.mode == "triggered"
        has_barrier = self.camera.barrier == "timer" or self.camera.barrier_pin is not None
        require(has_barrier or not triggered_camera, "camera.barrier_pin", 'is needed for mode "triggered"')

        is_timed = self.motion.by != "barriers" or self.source != "camera" or self.has_second_barrier
        require(is_timed, "motion.by", 'barriers are wired to the overlay: they need [camera] barrier = "timer"')
        is_wired = self.motion.encoder is None or self.gate.kind == "timer"
        require(is_wired, "motion.encoder", 'is the overlay\'s: it needs [gate] kind = "timer"')

    @property
    def needs_timer(self) -> bool:
        """That of the overlay."""
        return self._is_stamped or self.panel or self.gate.kind == "timer"

    @property
    def has_second_barrier(self) -> bool:
        """Wired to the overlay, beside the first one."""
        return self.motion.by == "barriers" and self._is_stamped

    @property
    def _is_stamped(self) -> bool:
        return self.source == "camera" and self.mode == "triggered" and self.camera.barrier == "timer"


def load_config(path: Path) -> LineConfig:
    """Raises: ConfigError `file:line: key: what is wrong`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}): give --config the line's TOML file") from None
    return resolve_paths(decode_config(data, str(path)), path.parent)


def decode_config(data: bytes, name: str) -> LineConfig:
    """Raises: ConfigError."""
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{name}: {len(data)} bytes; at most {MAX_CONFIG_BYTES} are read")
    try:
        text = data.decode()
        return build(LineConfig, tomllib.loads(text))
    except FieldError as error:
        raise ConfigError(f"{name}:{find_line(text, error.key)}: {error}") from None
    except (ValueError, RecursionError) as error:  # subtle: a number of 5000 digits is a plain ValueError
        raise ConfigError(f"{name}: not TOML: {error}") from None


def find_line(text: str, key: str) -> int:
    """Line number of a dotted key in TOML text; of its table, or 1, where the key is not written."""
    table, found = "", 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([\w.-]+)", line)
        if header:
            table = header[1] + "."
            if f"{key}.".startswith(table):
                found = number
        assigned = re.match(r"\s*([\w.-]+)\s*=", line)
        if assigned and f"{key}.".startswith(f"{table}{assigned[1]}."):
            return number
    return found


def resolve_paths(config: LineConfig, folder: Path) -> LineConfig:
    """The configuration with every relative path made relative to `folder`."""

    def resolve(settings: Any) -> Any:
        changes: dict[str, Any] = {}
        for name, value in vars(settings).items():
            if isinstance(value, Path):
                changes[name] = folder / value
            elif hasattr(value, "__dataclass_fields__"):
                changes[name] = resolve(value)
        return replace(settings, **changes)

    resolved: LineConfig = resolve(config)
    return resolved
