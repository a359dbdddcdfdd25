"""The FPGA engine's driver through the real pynq package, unpatched, on a device that is the simulated overlay."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import tty
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pynq
import pytest
from numpy.typing import NDArray

from board.engines.fpga import FpgaEngine, load_program
from board.engines.fpga_pynq import UNMASK, FpgaSettings, find_logic
from board.engines.fpga_pynq import open_fpga as open_on
from board.engines.fpga_sim import find_library
from board.overlay import isa
from board.overlay.program import Program
from board.overlay.registers import CONTROL_START
from board.overlay.simulation.pynq_device import SimulatedDevice
from host.compiler.compilation import compile_net
from host.integers.arithmetic import IMAGE, IMAGE_EXPONENT, MAP, Conv, IntegerNet, run
from protocol.errors import EngineError
from protocol.manifest import load_package

ROOT = Path(__file__).resolve().parents[2]
HWH = Path(__file__).parent / "overlay.hwh"
ADDRESS = 0x43C1_0000  # as the .hwh says
MODEL = min(path.parent for path in (ROOT / "models").glob("*/manifest.json"))
DEADLINE_S = 60.0  # the simulation takes its time


def make_net(seed: int, side_px: int = 16) -> IntegerNet:
    rng = np.random.default_rng(seed)
    stem = make_conv(rng, "stem", (IMAGE, IMAGE_EXPONENT), (16, 3, 3, 3), 2)
    return IntegerNet((side_px, side_px), (stem, make_conv(rng, MAP, ("stem", -4), (1, 16, 3, 3), 1)))


def make_conv(
    rng: np.random.Generator, name: str, source: tuple[str, int], shape: tuple[int, ...], stride: int
) -> Conv:
    weights = rng.integers(-60, 61, shape).astype(np.int8)
    scale = np.full(shape[0], -4 - source[1] - 9, np.int32)  # a right shift by 9
    bias = rng.integers(-5000, 5000, shape[0]).astype(np.int32)
    return Conv(name, source[0], weights, scale, bias, exponent=-4, stride=stride, relu=name != MAP)


NET, OTHER_NET = make_net(1), make_net(2, side_px=24)
PROGRAM, OTHER_PROGRAM = compile_net(NET).program, compile_net(OTHER_NET).program


def picture(seed: int, net: IntegerNet = NET) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*net.input_px, 3), np.uint8)


def truth(image: NDArray[np.uint8], net: IntegerNet = NET) -> NDArray[np.int8]:
    return run(net, (image ^ np.uint8(0x80)).view(np.int8).transpose(2, 0, 1))


@pytest.fixture(scope="module")
def the_device() -> SimulatedDevice:
    if not shutil.which("g++"):
        pytest.skip("the simulated overlay is compiled with g++, which is not installed")
    device = SimulatedDevice(find_library(), ADDRESS)
    pynq.Device.active_device = device
    return device


@pytest.fixture
def device(the_device: SimulatedDevice) -> Iterator[SimulatedDevice]:
    the_device.answers.clear()
    the_device.interrupt = None
    yield the_device
    assert not the_device.buffers, "somebody did not give memory back"


@pytest.fixture
def settings(tmp_path: Path) -> FpgaSettings:
    bitstream = tmp_path / "beltsight.bit"
    bitstream.write_bytes(b"the simulated device does not look into it")
    shutil.copy(HWH, bitstream.with_suffix(".hwh"))
    return FpgaSettings(bitstream, deadline_s=DEADLINE_S)


def open_fpga(program: Program, settings: FpgaSettings) -> FpgaEngine:
    """The only engine of its logic."""
    return open_on(program, settings, find_logic(settings))


def check(engine: FpgaEngine, seeds: range, net: IntegerNet = NET) -> None:
    for seed in seeds:
        assert np.array_equal(engine.infer(picture(seed, net)), truth(picture(seed, net), net))


def fails(settings: FpgaSettings, program: Program = PROGRAM) -> str:
    with pytest.raises(EngineError) as caught:
        open_fpga(program, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_shipped_model_gives_its_golden_map(device: SimulatedDevice, settings: FpgaSettings) -> None:
    package = load_package(MODEL)
    golden = package.load_golden()
    engine = open_fpga(load_program(package), settings)
    assert np.array_equal(engine.infer(golden.images[-1]), golden.maps[-1])
    assert engine.counters() == {name: device.simulator.read(name) for name in engine.counters()}
    assert engine.counters()["CYCLES"] > engine.counters()["CYCLES_MAC"] > 0
    engine.close()


@pytest.mark.usefixtures("device")
def test_the_hwh_says_address_and_clock(settings: FpgaSettings) -> None:
    engine = open_fpga(PROGRAM, replace(settings, address=0, clock_mhz=50.0))
    check(engine, range(1))
    assert pynq.Clocks.fclk0_mhz == 100.0
    engine.close()


@pytest.mark.usefixtures("device")
def test_without_hwh_the_settings_say_them(settings: FpgaSettings) -> None:
    settings.bitstream.with_suffix(".hwh").unlink()
    engine = open_fpga(PROGRAM, replace(settings, address=ADDRESS, clock_mhz=50.0))
    check(engine, range(1))
    assert pynq.Clocks.fclk0_mhz == 50.0
    engine.close()


def test_a_hwh_faster_than_the_bitstream_is_refused_before_it_is_loaded(
    device: SimulatedDevice, settings: FpgaSettings
) -> None:
    clock_mhz, downloads = pynq.Clocks.fclk0_mhz, device.downloads
    settings.bitstream.with_suffix(".json").write_text('{"clock_mhz": 58}')
    message = fails(settings)
    assert message.startswith("the .hwh asks for 100 MHz and the bitstream is made for 58: copy both, and the .json")
    assert (pynq.Clocks.fclk0_mhz, device.downloads) == (clock_mhz, downloads)
    faster = HWH.read_text().replace('DIVISOR0" VALUE="5"', 'DIVISOR0" VALUE="4"', 1)
    settings.bitstream.with_suffix(".json").unlink()
    settings.bitstream.with_suffix(".hwh").write_text(faster)
    assert "the .hwh asks for 125 MHz and the bitstream is made for 100" in fails(settings)
    assert device.downloads == downloads


@pytest.mark.usefixtures("device")
def test_a_slower_sidecar_is_heeded_without_hwh(settings: FpgaSettings) -> None:
    settings.bitstream.with_suffix(".hwh").unlink()
    settings.bitstream.with_suffix(".json").write_text('{"clock_mhz": 58}')
    engine = open_fpga(PROGRAM, replace(settings, address=ADDRESS))
    assert pynq.Clocks.fclk0_mhz == 55.555556
    engine.close()


@pytest.mark.usefixtures("device")
def test_frames_back_to_back(settings: FpgaSettings) -> None:
    engine = open_fpga(PROGRAM, settings)
    maps = [engine.infer(picture(seed)) for seed in range(30)]
    engine.close()
    assert len({anomaly.tobytes() for anomaly in maps}) == 30, "frames differ, and a map is not overwritten by the next"
    assert all(np.array_equal(anomaly, truth(picture(seed))) for seed, anomaly in enumerate(maps))


@pytest.mark.usefixtures("device")
def test_models_one_after_the_other(settings: FpgaSettings) -> None:
    for program, net in ((PROGRAM, NET), (OTHER_PROGRAM, OTHER_NET), (PROGRAM, NET)):
        engine = open_fpga(program, settings)
        check(engine, range(3), net)
        engine.close()


def test_two_models_take_turns_on_one_overlay(device: SimulatedDevice, settings: FpgaSettings) -> None:
    """As while a model is changed: one judges, the other is tested, and either may be the one that goes."""
    logic = find_logic(settings)
    first = open_on(PROGRAM, settings, logic)
    downloads = device.downloads
    second = open_on(OTHER_PROGRAM, settings, logic)
    for turn in range(3):
        check(first, range(turn, turn + 1))
        check(second, range(turn, turn + 2), OTHER_NET)
    first.close()
    check(second, range(2), OTHER_NET)
    first = open_on(PROGRAM, settings, logic)
    second.close()
    check(first, range(2))
    assert device.downloads == downloads, "the overlay is never loaded again under a model"
    first.close()
    assert not device.buffers


def test_two_models_at_the_same_time_never_mix(settings: FpgaSettings, device: SimulatedDevice) -> None:
    logic = find_logic(settings)
    engines = ((open_on(PROGRAM, settings, logic), NET), (open_on(OTHER_PROGRAM, settings, logic), OTHER_NET))
    wrong: list[int] = []

    def judge(engine: FpgaEngine, net: IntegerNet) -> None:
        wrong.extend(
            seed
            for seed in range(12)
            if not np.array_equal(engine.infer(picture(seed, net)), truth(picture(seed, net), net))
        )

    threads = [threading.Thread(target=judge, args=pair) for pair in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert wrong == []
    for engine, _ in engines:
        engine.close()
    assert not device.buffers


def test_after_a_fault_of_one_model_the_other_is_right(device: SimulatedDevice, settings: FpgaSettings) -> None:
    logic = find_logic(settings)
    first, second = open_on(PROGRAM, replace(settings, deadline_s=0.3), logic), open_on(OTHER_PROGRAM, settings, logic)
    first.infer(picture(0))
    device.simulator.set_trouble(frozen=True)
    with pytest.raises(EngineError, match="no result within"):
        first.infer(picture(1))
    check(second, range(2), OTHER_NET)
    first.close()
    check(second, range(2), OTHER_NET)
    second.close()


@pytest.fixture
def uio(bare_sysfs: Path, tmp_path: Path) -> Iterator[int]:
    """The kernel's side of a UIO device for interrupt 61: a terminal that stands where /dev/full is, in this namespace.

    Its name must be in /dev; a terminal is the file that can be written and waited for alike.
    """
    kernel, ours = os.openpty()
    os.set_blocking(kernel, False)
    tty.setraw(ours)
    table = tmp_path / "interrupts"
    table.write_text("           CPU0       CPU1\n 46:          0          0     GIC-0  61 Level     fabric\n")
    described = bare_sysfs.parent / "uio" / "full"
    described.mkdir(parents=True)
    (described / "name").write_text("fabric\n")
    over = {"/proc/interrupts": str(table), "/dev/full": os.ttyname(ours)}
    for place, what in over.items():
        subprocess.run(["mount", "--bind", what, place], check=True)
    yield kernel
    for place in over:
        subprocess.run(["umount", "--lazy", place], check=True)
    shutil.rmtree(described.parent)
    os.close(kernel)
    os.close(ours)


def test_the_interrupt_ends_the_wait(device: SimulatedDevice, settings: FpgaSettings, uio: int) -> None:
    device.interrupt = partial(os.write, uio, bytes(4))
    engine = open_fpga(PROGRAM, settings)
    before = device.reads
    check(engine, range(20))
    assert device.reads - before <= 2 * 20, "STATUS after the start and after the interrupt, no polling"
    engine.close()


def test_the_interrupt_is_let_through_for_every_frame(
    device: SimulatedDevice, settings: FpgaSettings, uio: int
) -> None:
    device.interrupt = lambda: None
    engine = open_fpga(PROGRAM, settings)
    check(engine, range(1))
    assert os.read(uio, 1000).startswith(UNMASK)
    engine.close()


def test_an_interrupt_that_never_comes_costs_some_milliseconds(
    device: SimulatedDevice, settings: FpgaSettings, uio: int
) -> None:
    assert uio
    engine = open_fpga(PROGRAM, settings)
    before = device.reads
    check(engine, range(2))
    assert device.reads - before > 4
    engine.close()


def test_another_version_asks_for_a_new_overlay(device: SimulatedDevice, settings: FpgaSettings) -> None:
    device.answers["VERSION"] = 0x1234
    needed = f"{isa.version():08x}"
    assert fails(settings) == f"overlay 00001234, this program needs {needed}: rebuild the overlay: `beltsight overlay`"
    device.answers = {"ID": 0}
    assert "no overlay of Beltsight answers, but 00000000: rebuild" in fails(settings)


@pytest.mark.usefixtures("device")
def test_a_bad_program_is_an_error_that_says_what_to_do(settings: FpgaSettings) -> None:
    bad = replace(PROGRAM, model=b"\0" + PROGRAM.model[1:])
    engine = open_fpga(bad, settings)
    for _ in range(2):
        with pytest.raises(
            EngineError, match=r"^fpga: the overlay stopped with OPCODE near .* export the model again$"
        ):
            engine.infer(picture(0))
    engine.close()


def test_after_a_fault_the_next_frame_is_right(device: SimulatedDevice, settings: FpgaSettings) -> None:
    engine = open_fpga(PROGRAM, settings)
    downloads = device.downloads
    for fault in ("READ", "WRITE"):
        device.simulator.set_trouble(
            fail_read_at=30 if fault == "READ" else -1, fail_write_at=0 if fault == "WRITE" else -1
        )
        with pytest.raises(EngineError, match=f"stopped with {fault} near"):
            engine.infer(picture(0))
        device.simulator.set_trouble()
        check(engine, range(1, 3))
    assert device.downloads == downloads, "a soft reset was enough"
    engine.close()


def test_a_memory_that_never_answers_ends_at_the_deadline(device: SimulatedDevice, settings: FpgaSettings) -> None:
    """The overlay cannot be reset while it waits for the memory: it is loaded again."""
    engine = open_fpga(PROGRAM, replace(settings, deadline_s=0.3))
    downloads = device.downloads
    engine.infer(picture(0))
    device.simulator.set_trouble(frozen=True)
    with pytest.raises(EngineError, match=r"no result within 0\.3 s: see whether the memory"):
        engine.infer(picture(1))
    assert device.downloads == downloads + 1
    check(engine, range(2, 4))
    engine.close()


def test_a_late_result_is_an_error_and_never_the_next_frames(device: SimulatedDevice, settings: FpgaSettings) -> None:
    """The frame is over long before the driver looks again, but not before its deadline."""
    engine = open_fpga(OTHER_PROGRAM, replace(settings, deadline_s=1e-6))
    for seed in range(2):
        with pytest.raises(EngineError, match="no result within"):
            engine.infer(picture(seed, OTHER_NET))
    engine.close()
    assert device.simulator.wait(50_000) is False
    engine = open_fpga(OTHER_PROGRAM, settings)
    check(engine, range(2, 4), OTHER_NET)
    engine.close()


def test_an_engine_that_hangs_can_be_closed(device: SimulatedDevice, settings: FpgaSettings) -> None:
    engine = open_fpga(PROGRAM, settings)
    device.simulator.write("CONTROL", CONTROL_START)
    device.simulator.wait(300)
    device.simulator.set_trouble(frozen=True)
    downloads = device.downloads
    engine.close()
    assert device.downloads == downloads + 1, "its memory is given back only when nothing can write it any more"
    engine = open_fpga(PROGRAM, settings)
    check(engine, range(1))
    engine.close()


@pytest.mark.usefixtures("device")
def test_an_image_of_another_size_is_an_error(settings: FpgaSettings) -> None:
    engine = open_fpga(PROGRAM, settings)
    images: tuple[NDArray[Any], ...] = (picture(0, OTHER_NET), picture(0).astype(np.int8), picture(0)[:, :, 0])
    for image in images:
        with pytest.raises(EngineError, match=r"fpga takes uint8 \(16, 16, 3\), not"):
            engine.infer(image)
    engine.close()


@pytest.mark.usefixtures("device")
def test_too_little_memory_is_an_error_and_gives_all_back(settings: FpgaSettings) -> None:
    large = replace(PROGRAM, scratch_bytes=1 << 27)
    expected = "cannot allocate 134217728 contiguous bytes (Failed to allocate memory): stop what else uses the logic"
    assert fails(settings, large) == expected


@pytest.mark.usefixtures("device")
def test_what_is_missing_is_named(settings: FpgaSettings) -> None:
    settings.bitstream.with_suffix(".hwh").write_text("no handoff")
    assert f"cannot load {settings.bitstream} (" in fails(settings)
    other = HWH.read_text().replace("beltsight_overlay", "somebody_elses")
    settings.bitstream.with_suffix(".hwh").write_text(other)
    assert "has 0 blocks beltsight_overlay, not one: use the one of `beltsight overlay`" in fails(settings)
    settings.bitstream.unlink()
    assert fails(settings) == f"no overlay at {settings.bitstream}: make it with `beltsight overlay`"


@pytest.mark.usefixtures("device")
def test_an_address_where_nothing_is_is_an_error(settings: FpgaSettings) -> None:
    settings.bitstream.with_suffix(".hwh").unlink()
    message = fails(replace(settings, address=0x4000_0000))
    assert message.endswith("(the bus hangs: nothing answers at 40000000): run as root on the board")
