"""The engine gives the golden maps of the configured model, bit for bit, in the time that the simulation promises."""

from __future__ import annotations

import time

import numpy as np

from board.config import LineConfig
from board.engines.fpga import Logic, load_program
from board.engines.fpga_pynq import open_fpga
from protocol.manifest import load_package
from tests.hardware.conftest import Person

FRAMES = 200


def test_the_golden_maps_are_those_of_the_model(config: LineConfig, logic: Logic, person: Person) -> None:
    package = load_package(config.models_dir / config.model)
    golden = package.load_golden()
    engine = open_fpga(load_program(package), config.engines.fpga, logic)
    try:
        for image, anomaly in zip(golden.images, golden.maps, strict=True):
            assert np.array_equal(engine.infer(image), anomaly)
        started_s = time.monotonic()
        for _ in range(FRAMES):
            engine.infer(golden.images[0])
        frame_ms = (time.monotonic() - started_s) / FRAMES * 1e3
        cycles = engine.counters()["CYCLES"]
    finally:
        engine.close()
    person.tell(
        f"{config.model}: {len(golden.maps)} golden maps equal; {frame_ms:.2f} ms a frame, {cycles} cycles in it"
    )
    person.tell("ARCHITECTURE.md, Measured, has the simulation's cycles: they differ by a few percent at most.")
