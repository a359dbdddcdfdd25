"""All checks of one station, in the order in which they are put right."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2

from board.checkup import machine
from board.checkup.broker import check_broker
from board.checkup.camera import check_camera
from board.checkup.challenge import check_challenge, check_known_bad
from board.checkup.finding import Finding, ok, refused
from board.checkup.gate import check_gate
from board.checkup.station import (
    check_config_file,
    check_engines,
    check_model,
    check_outbox,
    check_secrets,
    check_set_aside,
    find_stations,
)
from board.config import LineConfig, load_config
from protocol.errors import ConfigError


def examine_station(path: Path) -> Iterator[Finding]:
    """`path` is the line's TOML file."""
    cv2.setNumThreads(1)
    try:
        config = load_config(path)
    except ConfigError as error:
        yield refused("configuration", error)
        return
    yield check_config_file(path)
    yield from machine.check_modules(list_extras(config))
    if "fpga" in config.engines.order:
        yield machine.check_cma(machine.read_meminfo())
    yield from check_disks(config)
    yield check_outbox(config)
    yield from check_set_aside(config)
    yield from check_secrets(config)
    if config.source == "camera":
        yield check_camera(config.camera)
    else:
        yield ok("camera", f"none: the frames come from the {config.source}")
    yield from check_gate(config)
    findings, package = check_model(config)
    yield from findings
    if package:
        yield from check_engines(config.engines, package, find_stations(), partial(check_known_bad, config, package))
    yield from check_challenge(config.challenge)
    yield from check_broker(config)


def check_disks(config: LineConfig) -> Iterator[Finding]:
    yield machine.check_disk("the outbox", config.mqtt.outbox)
    if config.recorder.keep != "nothing":
        yield machine.check_disk("recordings", config.recorder.folder, config.recorder.max_bytes)


def list_extras(config: LineConfig) -> dict[str, str]:
    """Modules beyond those that every station needs, and what for."""
    extras = {}
    if "fpga" in config.engines.order or config.gate.kind == "gpio" or config.camera.barrier_pin is not None:
        extras["pynq"] = "FPGA and GPIO"
    if "arm" in config.engines.order and config.engines.runtime == "onnxruntime":
        extras["onnxruntime"] = 'runtime = "onnxruntime"'
    if config.trusted_keys:
        extras["cryptography"] = "signed models"
    return extras
