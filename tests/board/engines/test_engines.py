"""Engines give the integer truth or an EngineError; the chain lets the best one speak that passes its self-test."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from board.engines.chain import EngineChain, open_arm, open_engine
from board.engines.onnx_runtime import OnnxRuntimeEngine
from board.engines.opencv_dnn import OpenCvEngine
from board.engines.settings import EngineName, EngineSettings
from board.seams import Engine
from protocol.errors import EngineError
from protocol.manifest import CARRIED_ONNX, MANIFEST, MODEL_ONNX, Golden, Package, load_package

MODELS = Path(__file__).resolve().parents[3] / "models"
SHIPPED = sorted(path.parent for path in MODELS.glob(f"*/{MANIFEST}"))
OPEN: dict[str, Callable[[Package], Engine]] = {
    "onnxruntime": lambda package: OnnxRuntimeEngine(package.path(MODEL_ONNX), 1),
    "opencv": lambda package: OpenCvEngine(package.path(CARRIED_ONNX), 1),
}
both = pytest.mark.parametrize("runtime", OPEN)


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)


@both
def test_an_engine_gives_the_golden_maps(runtime: str, trivial_package: Package) -> None:
    golden, engine = trivial_package.load_golden(), OPEN[runtime](trivial_package)
    for image, expected in zip(golden.images, golden.maps, strict=True):
        anomaly = engine.infer(image)
        assert anomaly.dtype == np.int8
        assert np.array_equal(anomaly, expected)
    engine.close()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
@both
def test_an_engine_gives_the_golden_maps_of_a_shipped_model(runtime: str, folder: Path) -> None:
    test_an_engine_gives_the_golden_maps(runtime, load_package(folder))


def test_both_runtimes_give_equal_integers(trivial_package: Package) -> None:
    one, other = (open_one(trivial_package) for open_one in OPEN.values())
    for seed in range(20):
        assert np.array_equal(one.infer(noise(seed)), other.infer(noise(seed)))


@both
def test_brightness_is_the_map_of_the_trivial_model(runtime: str, trivial_package: Package) -> None:
    engine = OPEN[runtime](trivial_package)
    for grey in (0, 100, 128, 255):
        assert engine.infer(np.full((128, 128, 3), grey, np.uint8))[1:, 1:].tolist() == [[grey - 128] * 7] * 7


@both
def test_a_map_is_not_overwritten_by_the_next(runtime: str, trivial_package: Package) -> None:
    engine = OPEN[runtime](trivial_package)
    first = engine.infer(noise(1))
    kept = first.copy()
    engine.infer(noise(2))
    assert np.array_equal(first, kept)


@both
def test_an_image_of_another_size_gives_no_map_of_the_models_shape(runtime: str, trivial_package: Package) -> None:
    """OpenCV takes any size; the chain refuses the map."""
    engine = OPEN[runtime](trivial_package)
    with contextlib.suppress(EngineError):
        assert engine.infer(np.zeros((64, 100, 3), np.uint8)).shape != trivial_package.manifest.map.shape


@both
@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a" + b"\xff" * 100])
def test_a_file_that_is_no_model_is_an_engine_error(runtime: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / MODEL_ONNX).write_bytes(content)
    engine: Callable[[Path, int], Engine] = OnnxRuntimeEngine if runtime == "onnxruntime" else OpenCvEngine
    with pytest.raises(EngineError, match=r"refuses|is no ONNX file"):
        engine(tmp_path / MODEL_ONNX, 1)


def six_channel_package(package: Package, folder: Path) -> Package:
    """A copy whose graphs answer with their input, twice."""
    shutil.copytree(package.folder, folder)
    for name in (MODEL_ONNX, CARRIED_ONNX):
        model = onnx.load(folder / name)
        del model.graph.output[:]
        kind = onnx.TensorProto.INT8 if name == MODEL_ONNX else onnx.TensorProto.FLOAT
        model.graph.output.append(onnx.helper.make_tensor_value_info("image_twice", kind, (1, 6, 128, 128)))
        model.graph.node.append(onnx.helper.make_node("Concat", ["image", "image"], ["image_twice"], axis=1))
        onnx.save(model, folder / name)
    return Package(folder, package.manifest)


@both
def test_a_map_of_several_channels_is_an_engine_error(runtime: str, trivial_package: Package, tmp_path: Path) -> None:
    package = six_channel_package(trivial_package, tmp_path / "six")
    with pytest.raises(EngineError, match=r"gave a map of int8 \(6, 128, 128\)"):
        EngineChain(EngineSettings(), package.load_golden(), lambda _: OPEN[runtime](package))


def test_the_runtime_is_chosen_by_the_settings(trivial_package: Package) -> None:
    names = {
        runtime: open_arm(trivial_package, EngineSettings(runtime=runtime)).name
        for runtime in ("auto", "onnxruntime", "opencv")
    }
    assert names == {"auto": "arm-onnxruntime", "onnxruntime": "arm-onnxruntime", "opencv": "arm-opencv"}


def test_a_chain_of_the_real_engine_speaks(trivial_package: Package) -> None:
    settings = EngineSettings(runtime="opencv")
    golden = trivial_package.load_golden()
    chain = EngineChain(settings, golden, lambda name: open_engine(name, trivial_package, settings))
    anomaly, speaker = chain.infer(golden.images[0])
    chain.close()
    assert speaker == "arm-opencv"
    assert np.array_equal(anomaly, golden.maps[0])


# ---- the chain, with engines that fail on demand

GOLDEN = Golden(
    np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), np.array([[[1, 2]], [[1, 2]]], np.int8)
)
IMAGE = np.zeros((4, 4, 3), np.uint8)
RETRY_S = 0.05


class FakeEngine:
    """Gives the golden map until it is told otherwise."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.map: NDArray[np.int8] = GOLDEN.maps[0]
        self.fails = False
        self.opens = True
        self.runs = 0
        self.closed = 0

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:  # noqa: ARG002 - the seam of all engines
        self.runs += 1
        if self.fails:
            raise EngineError(f"{self.name} is broken")
        return np.array(self.map)

    def close(self) -> None:
        self.closed += 1


class Bench:
    """A chain of a better and a worse fake engine."""

    def __init__(self, self_test_every: int = 0, **better: object) -> None:
        self.better, self.worse = FakeEngine("better"), FakeEngine("worse")
        vars(self.better).update(better)
        # the names of the settings are those of real engines; what opens behind them is ours
        order: tuple[EngineName, ...] = ("arm", "remote")
        settings = replace(EngineSettings(retry_s=RETRY_S, self_test_every=self_test_every), order=order)
        self.chain = EngineChain(settings, GOLDEN, self._open)

    def _open(self, name: str) -> FakeEngine:
        engine = self.better if name == "arm" else self.worse
        if not engine.opens:
            raise EngineError(f"{engine.name} does not open")
        return engine

    def speaker(self) -> str:
        return self.chain.infer(IMAGE)[1]


def test_the_first_of_the_order_speaks() -> None:
    bench = Bench()
    assert bench.speaker() == "better"
    assert not bench.chain.degraded
    assert bench.worse.runs == 0, "the worse one is not even opened"


def test_a_failing_engine_is_left_for_the_next_and_the_same_part_is_judged() -> None:
    bench = Bench()
    bench.better.fails = True
    anomaly, speaker = bench.chain.infer(IMAGE)
    assert (speaker, anomaly.tolist()) == ("worse", [[1, 2]])
    assert bench.chain.degraded
    assert bench.chain.trouble == "arm: better is broken"
    assert bench.better.closed == 1


def test_a_left_engine_rests_until_its_retry() -> None:
    bench = Bench()
    bench.better.fails = True
    bench.speaker()
    runs = bench.better.runs
    assert bench.speaker() == "worse"
    assert bench.better.runs == runs


def test_the_line_returns_to_the_better_engine_when_it_passes_again() -> None:
    bench = Bench()
    bench.better.fails = True
    bench.speaker()
    time.sleep(RETRY_S)
    assert bench.speaker() == "worse", "still broken: the retry's self-test fails"
    bench.better.fails = False
    time.sleep(RETRY_S)
    assert bench.speaker() == "better"
    assert not bench.chain.degraded


@pytest.mark.parametrize(
    "wrong",
    [
        {"map": np.array([[1, 3]], np.int8)},
        {"map": np.array([[1, 2, 3]], np.int8)},
        {"map": np.array([1, 2], np.int8)},
        {"map": np.array([[1, 2]], np.float32)},
        {"fails": True},
        {"opens": False},
    ],
)
def test_an_engine_that_fails_its_self_test_never_speaks(wrong: dict[str, object]) -> None:
    bench = Bench(**wrong)  # type: ignore[arg-type]
    assert bench.speaker() == "worse"
    assert bench.chain.degraded


def test_the_self_test_checks_every_golden_vector() -> None:
    golden = replace(GOLDEN, maps=np.array([[[1, 2]], [[1, 9]]], np.int8))
    with pytest.raises(EngineError, match="fake does not give the model's golden map"):
        EngineChain(EngineSettings(), golden, lambda _: FakeEngine("fake"))


def test_an_engine_that_drifts_is_found_by_the_next_self_test() -> None:
    bench = Bench(self_test_every=3)
    bench.better.map = np.array([[0, 0]], np.int8)
    assert [bench.speaker() for _ in range(4)] == ["better", "better", "worse", "worse"]


def test_a_map_of_another_shape_is_left_at_once() -> None:
    bench = Bench()
    bench.better.map = np.zeros((2, 2), np.int8)
    assert bench.speaker() == "worse"


def test_all_failing_is_an_engine_error_and_not_the_end() -> None:
    bench = Bench()
    bench.better.fails = bench.worse.fails = True
    for _ in range(2):
        with pytest.raises(EngineError, match="every engine failed: arm: better is broken; remote: worse is broken"):
            bench.speaker()
    assert bench.chain.speaker is None
    bench.worse.fails = False
    time.sleep(RETRY_S)
    assert bench.speaker() == "worse"


def test_a_chain_without_any_working_engine_does_not_start() -> None:
    with pytest.raises(EngineError, match="no engine passes its self-test: arm: no such engine"):
        EngineChain(EngineSettings(), GOLDEN, refuse_to_open)


def refuse_to_open(_name: EngineName) -> Engine:
    raise EngineError("no such engine")


def test_close_closes_what_is_open() -> None:
    bench = Bench()
    bench.chain.close()
    assert (bench.better.closed, bench.worse.closed) == (1, 0)
