"""The line's TOML file: defaults, paths, and refusals that name file, line and key."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.config import MAX_CONFIG_BYTES, LineConfig, decode_config, find_line, load_config
from protocol.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "board" / "line.toml"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        decode_config(text.encode(), "line.toml")
    return str(refused.value)


def test_the_shipped_file_loads() -> None:
    config = load_config(SHIPPED)
    assert (config.source, config.gate.kind, config.engines.order) == ("belt", "dry", ("arm",))


def test_the_shipped_file_repeats_the_defaults() -> None:
    """What it writes out for the reader must not drift from what the classes say."""
    shipped = decode_config(SHIPPED.read_bytes(), "line.toml")
    defaults = LineConfig(shipped.model)
    same = ("site", "line", "models_dir", "source", "mode", "threshold", "belt_speed_mm_s")
    assert [getattr(shipped, name) for name in same] == [getattr(defaults, name) for name in same]
    assert (shipped.belt, shipped.camera, shipped.gate, shipped.broker) == (
        defaults.belt,
        defaults.camera,
        defaults.gate,
        defaults.broker,
    )


def test_only_the_model_must_be_given() -> None:
    assert decode_config(b'model = "m"', "line.toml") == LineConfig("m")


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text(
        'model = "m"\nmodels_dir = "/opt/models"\n[mqtt]\noutbox = "a/b.sqlite"\n[gate]\ndry_log = "g.jsonl"\n'
    )
    config = load_config(path)
    assert config.models_dir == Path("/opt/models")
    assert config.mqtt.outbox == tmp_path / "a" / "b.sqlite"
    assert config.gate.dry_log == tmp_path / "g.jsonl"
    assert config.recorder.folder == tmp_path / "recordings"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line.toml:1: model: missing"),
        ('model = "m"\n\ncolour = "red"\n', "line.toml:3: colour: unknown key; known keys are model, site"),
        ('model = "m"\n[gate]\nkind = "dry"\nangle = 3', "line.toml:4: gate.angle: unknown key"),
        ('model = "m"\n[gatee]\nkind = "dry"', "line.toml:2: gatee: unknown key"),
        ('model = "m"\ngate.angle = 3', "line.toml:2: gate.angle: unknown key"),
        ('model = "m"\ngate = { angle = 3 }', "line.toml:2: gate.angle: unknown key"),
        ('model = "m"\n[engines]\nthreads = true', "line.toml:3: engines.threads: must be a whole number"),
        ('model = "m"\n[engines]\norder = ["arm", "gpu"]', "line.toml:3: engines.order.1: must be one of"),
        ('model = "m"\n[engines]\norder = []', "line.toml:3: engines.order: must name at least one engine"),
        ('model = "m"\n[engines]\norder = ["arm", "arm"]', "line.toml:3: engines.order: must not name an engine twice"),
        ('model = "m"\n[broker]\nport = 65536', "line.toml:3: broker.port: must be 1..65535"),
        ('model = "m"\n[broker]\nport = "1883"', "line.toml:3: broker.port: must be a whole number, not text"),
        ('model = "m"\nsite = "a/b"', "line.toml:2: site: must be a name without spaces"),
        ('model = "../m"', "line.toml:1: model: must be the name of a folder in models_dir"),
        ('model = "m"\nbelt_speed_mm_s = 0', "line.toml:2: belt_speed_mm_s: must be 0.1..100000"),
        ('model = "m"\nbelt_speed_mm_s = 1e-300', "line.toml:2: belt_speed_mm_s: must be 0.1..100000"),
        ('model = "m"\n[gate]\nlead_ms = 1e300', "line.toml:3: gate.lead_ms: must be 0..1000"),
        ('model = "m"\n[gate]\ndistance_mm = 1e300', "line.toml:3: gate.distance_mm: must be more than half"),
        ('model = "m"\nbelt_speed_mm_s = inf', "line.toml:2: belt_speed_mm_s: must be a finite number"),
        ('model = "m"\nsource = "usb"', "line.toml:2: source: must be one of 'belt', 'camera', 'replay'"),
        ('model = "m"\nsource = "camera"', "line.toml:1: camera.barrier_pin: is needed"),
        ('model = "m"\nthreshold = "low"', "line.toml:2: threshold: must be a number, not text"),
        ('model = "m"\n[gate]\ndistance_mm = 30', "line.toml:3: gate.distance_mm: must be more than half of window_mm"),
        ('model = "m"\n[mqtt]\nwhen_full = "drop"', "line.toml:3: mqtt.when_full: must be one of"),
        ('model = "m"\n[mqtt]\nmax_stored = 0', "line.toml:3: mqtt.max_stored: must be 1 or more"),
        ('model = "m"\n[mqtt]\noutbox = "a\\u0000b"', "line.toml:3: mqtt.outbox: must be a path without zero bytes"),
        ('model = "m"\n[recorder]\nmax_bytes = 1', "line.toml:3: recorder.max_bytes: must be at least twice"),
        ('model = "m"\n[tap]\nqueue_parts = 0', "line.toml:3: tap.queue_parts: must be 1..1000"),
        ('model = "m"\n[belt]\nframe_timeout_ms = 0', "line.toml:3: belt.frame_timeout_ms: must be above 0"),
        ('model = "m"\n[replay]\nrate_hz = -1', "line.toml:3: replay.rate_hz: must be 0 or more"),
        ('model = "m"\n[camera]\nsize_px = [480]', "line.toml:3: camera.size_px: must have 2 values"),
        ('model = "m"\n"a\\nb" = 1', "line.toml:1: 'a\\nb': unknown key"),
        ('model = "m"\nmodel = "n"', "line.toml: not TOML: "),
        ("model = ", "line.toml: not TOML: "),
        ("model = " + "9" * 5000, "line.toml: not TOML: "),
        ("model = " + "[" * 5000, "line.toml: not TOML: "),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_line(text: str, message: str) -> None:
    refused = refusal(text)
    assert refused.startswith(message)
    assert "\n" not in refused


def test_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml \(No such file or directory\): give --config"):
        load_config(tmp_path / "none.toml")


def test_text_that_is_no_utf_8_and_files_without_end_are_refused() -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        decode_config(b"\xff", "line.toml")
    with pytest.raises(ConfigError, match="at most"):
        decode_config(b"#" * (MAX_CONFIG_BYTES + 1), "line.toml")


@pytest.mark.parametrize(("key", "line"), [("a", 1), ("t.a", 3), ("t.u.a", 5), ("t.b", 2), ("x", 1)])
def test_the_line_of_a_key_or_else_of_its_table(key: str, line: int) -> None:
    assert find_line("a = 1\n[t]\na = 1\n[t.u]\na = 1\n", key) == line


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        decode_config(data, "line.toml")


TABLES = ["", "[gate]", "[engines]", "[broker]", "[mqtt]", "[tap]", "[recorder]", "[belt]", "[camera]", "[replay]"]
KEYS = [
    "threshold",
    "distance_mm",
    "window_mm",
    "threads",
    "port",
    "max_stored",
    "file_bytes",
    "fps",
    "size_px",
    "kind",
]
VALUES = ["0", "-1", "1e400", "nan", "9" * 30, "true", "[]", "[1, 2]", '""', '"x"', "{}", "1979-05-27", "07:32:00", "'"]


@given(st.lists(st.tuples(st.sampled_from(TABLES), st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=4))
def test_any_settings_are_a_configuration_or_refused(lines: list[tuple[str, str, str]]) -> None:
    text = 'model = "m"\n' + "".join(f"{table}\n{key} = {value}\n" for table, key, value in lines)
    with contextlib.suppress(ConfigError):
        decode_config(text.encode(), "line.toml")
