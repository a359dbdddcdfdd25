"""The station's own folder on the card: code, models, configuration and keys of one version.

/opt/beltsight/current -> versions/<digest>     what beltsight.service starts
/opt/beltsight/versions/<digest>/
    board/ protocol/ wheels/ models/ …          as on the desk, root's alone
    config/line.toml                            with what it names, of mode 0600
    site/                                       made by the board at its first boot, from wheels/
    runs -> /var/lib/beltsight                  what outlives updates: outbox, recordings
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from board.config import LineConfig, decode_config, load_config
from board.models.change import require_taken
from host.flash.payload import Entry, digest, file, folder, link
from protocol.errors import InputError
from protocol.manifest import MANIFEST, Package, load_package
from protocol.signing import SIGNATURE, TrustedKeys

HOME = "/opt/beltsight"
VERSIONS = f"{HOME}/versions"
CURRENT = f"{HOME}/current"
STATE = "/var/lib/beltsight"
CARD = "card.json"  # in each version: what it is, for people and for --update
Profile = Literal["production", "developer"]
# Files for the station to read.
CARRIED_KEYS = ("trusted_keys", "engines.onnx_library", "engines.remote.", "broker.credentials.")
KERNELS = "board/engines/kernels/kernels-armv7l.so"  # beltsight kernels; without it ONNX Runtime judges
BITSTREAM_KEY = "engines.fpga.bitstream"
OWN_FOLDERS = {"board", "protocol", "wheels", "site", "models"}  # nothing that line.toml names may lie in these
MAX_CARRIED_BYTES = 250 << 20  # the official image leaves about 300 MB free before it has grown to its card


@dataclass(frozen=True)
class Station:
    version: str
    site: str
    line: str
    model: str
    entries: list[Entry]


def build_station(root: Path, config_file: Path, more_models: list[str], wheels: dict[str, bytes]) -> Station:
    """Everything below one version's folder. Raises: InputError, ConfigError, ManifestError."""
    load_config(config_file)  # refused with its own path
    data = config_file.read_bytes()
    config = decode_config(data, str(config_file))
    require_fit_for_a_board(config)
    relative = [
        *_code(root),
        file("config/line.toml", data, 0o600),
        *_models(config_file.parent, config, more_models),
        *_named_files(config_file.parent, config),
        *(file(f"wheels/{name}", content) for name, content in wheels.items()),
        link("runs", STATE),
    ]
    version = digest(relative)
    if sum(len(entry.content or b"") for entry in relative) > MAX_CARRIED_BYTES:
        raise InputError(f"more than {MAX_CARRIED_BYTES >> 20} MiB for the card: carry fewer models")
    base = f"{VERSIONS}/{version}"
    entries = [folder(base), folder(f"{base}/config", 0o700), folder(STATE, 0o700)]
    entries += [Entry(f"{base}/{entry.path}", entry.mode, entry.content, entry.link) for entry in relative]
    return Station(version, config.site, config.line, config.model, [*entries, link(CURRENT, f"versions/{version}")])


def describe(station: Station, image: str, profile: Profile) -> Entry:
    """What the version is, for people and for the next update."""
    about = {name: getattr(station, name) for name in ("version", "site", "line", "model")}
    text = json.dumps({**about, "image": image, "profile": profile}, indent=2) + "\n"
    return file(f"{VERSIONS}/{station.version}/{CARD}", text.encode())


def require_fit_for_a_board(config: LineConfig) -> None:
    """Raises: InputError for what works on the desk and not on a board that starts by itself."""
    if config.mqtt.broker_at_start == "required":
        raise InputError('[mqtt] broker_at_start is "required": a board starts without network; write "optional"')
    if config.source == "replay":
        raise InputError('source is "replay": a board has no pictures to replay; write "camera" or "belt"')
    if "fpga-sim" in config.engines.order:
        raise InputError('[engines] order has "fpga-sim", which simulates the logic: write "fpga" or "arm"')


def _code(root: Path) -> Iterator[Entry]:
    for package in ("board", "protocol"):
        for path in sorted((root / package).rglob("*")):
            inside = path.relative_to(root)
            wanted = path.suffix in (".py", ".sh") or inside.as_posix() == KERNELS
            if wanted and "__pycache__" not in inside.parts:
                yield file(inside.as_posix(), path.read_bytes())


def _models(folder_of_config: Path, config: LineConfig, more: list[str]) -> Iterator[Entry]:
    names = [config.model, *more]
    if config.second_opinion:
        names.append(config.second_opinion.model)
    trusted = TrustedKeys(folder_of_config / config.trusted_keys) if config.trusted_keys else None
    place = _place("models_dir", config.models_dir)
    for name in dict.fromkeys(names):
        package = load_package(folder_of_config / config.models_dir / name, trusted)
        require_taken(name, package.manifest, config.model_change)
        yield from _model(package, f"{place}/{name}")


def _model(package: Package, place: str) -> Iterator[Entry]:
    for name in (MANIFEST, *package.manifest.files):
        yield file(f"{place}/{name}", (package.folder / name).read_bytes())
    if (package.folder / SIGNATURE).is_file():
        yield file(f"{place}/{SIGNATURE}", (package.folder / SIGNATURE).read_bytes())


def _named_files(folder_of_config: Path, config: LineConfig) -> Iterator[Entry]:
    """Keys, certificates and the overlay that line.toml names, at the same place relative to it."""
    for key, path in _paths(config):
        if key.startswith(CARRIED_KEYS):
            yield from _secret(key, folder_of_config / path, _place(key, path))
        elif key == BITSTREAM_KEY and "fpga" in config.engines.order:
            yield from _bitstream(folder_of_config / path, _place(key, path))
        elif key not in unused(config):
            require_lasting(key, path)


def unused(config: LineConfig) -> set[str]:
    """Keys of paths that the station does not write to. What is in none of these sets must outlive an update."""
    keys = {"models_dir", "replay.path", BITSTREAM_KEY}
    if config.recorder.keep == "nothing" and not config.mqtt.commands and config.second_opinion is None:
        keys.add("recorder.folder")
    if not config.drift.enabled:
        keys.add("drift.folder")
    return keys


def require_lasting(key: str, path: Path) -> None:
    """Raises: InputError for a place that an update of the card would not keep."""
    place = posixpath.normpath(posixpath.join("/config", path.as_posix()))
    if not place.startswith(("/runs/", f"{STATE}/")):
        raise InputError(f"{key} = {str(path)!r} would not outlive an update: put it under ../runs/ or {STATE}/")


def _bitstream(path: Path, place: str) -> Iterator[Entry]:
    if not path.is_file():
        raise InputError(f"no overlay at {path}: make it with `beltsight overlay`, or take fpga out of [engines] order")
    yield file(place, path.read_bytes())
    beside = path.with_suffix(".hwh")
    if beside.is_file():
        yield file(place.removesuffix(path.suffix) + ".hwh", beside.read_bytes())


def _secret(key: str, path: Path, place: str) -> Iterator[Entry]:
    """A file, or the public keys of a folder; root's alone, as nothing tells a key from a certificate by its name."""
    try:
        if not path.is_dir():
            yield file(place, path.read_bytes(), 0o600)
            return
        yield folder(place, 0o700)
        for inside in sorted(path.iterdir()):
            if inside.name.endswith(".public.pem"):  # a maker's secret beside it never goes to a station
                yield file(f"{place}/{inside.name}", inside.read_bytes(), 0o600)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): correct {key} in line.toml") from None


def _place(key: str, path: Path) -> str:
    """Where a path of line.toml lies below the version's folder. Raises: InputError if it would lie elsewhere."""
    place = posixpath.normpath(posixpath.join("config", path.as_posix()))
    if path.is_absolute() or place.split("/")[0] in ("..", ".", *OWN_FOLDERS - {"models"}):
        raise InputError(f"{key} = {str(path)!r} must lie beside line.toml, or beside its folder: move it, and say so")
    return place


def _paths(settings: Any, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Dotted key and value of every path in the configuration."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Path):
            yield prefix + field.name, value
        elif is_dataclass(value):
            yield from _paths(value, f"{prefix}{field.name}.")
