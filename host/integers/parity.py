"""Run the exported graphs and compare integers: every engine must agree with the NumPy reference, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx

from board.preprocess import as_input
from host.integers.arithmetic import IMAGE, MAP, Int8, IntegerNet, NotExactError, run_all

Images = NDArray[np.uint8]
IntegerMaps = NDArray[np.int8]
Features = NDArray[np.int8]  # (n, channels, h', w'): a map is the only channel of most networks

ALL_OPTIMIZATIONS = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def run_numpy(net: IntegerNet, images: Images) -> IntegerMaps:
    """int8 (n, h', w') of images uint8 (n, h, w, 3)."""
    return features_numpy(net, images)[:, 0]


def features_numpy(net: IntegerNet, images: Images) -> Features:
    return np.stack([run_all(net, as_input(image)[0])[MAP] for image in images])


def run_onnxruntime(
    model: onnx.ModelProto, images: Images, level: onnxruntime.GraphOptimizationLevel = ALL_OPTIMIZATIONS
) -> IntegerMaps:
    """model.onnx on one thread, one image at a time as on the line."""
    return features_onnxruntime(model, images, level)[:, 0]


def features_onnxruntime(
    model: onnx.ModelProto, images: Images, level: onnxruntime.GraphOptimizationLevel = ALL_OPTIMIZATIONS
) -> Features:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.stack([session.run([MAP], {IMAGE: as_input(image)})[0][0] for image in images])


def run_opencv(carried: onnx.ModelProto, images: Images) -> IntegerMaps:
    """carried.onnx with OpenCV's dnn."""
    return features_opencv(carried, images)[:, 0]


def features_opencv(carried: onnx.ModelProto, images: Images) -> Features:
    net = cv2.dnn.readNetFromONNX(np.frombuffer(carried.SerializeToString(), np.uint8))
    net.enableWinograd(False)
    maps = []
    for image in images:
        net.setInput(as_input(image).astype(np.float32))
        maps.append(_as_int8(net.forward()[0]))
    return np.stack(maps)


def run_qonnx(graph: onnx.ModelProto, net: IntegerNet, images: Images) -> IntegerMaps:
    """model.qonnx with qonnx's own execution."""
    return features_qonnx(graph, net, images)[:, 0]


def features_qonnx(graph: onnx.ModelProto, net: IntegerNet, images: Images) -> Features:
    wrapper = ModelWrapper(graph)
    scale = np.float32(2.0 ** net.exponents()[MAP])
    pictures = (as_input(image).astype(np.float32) / 128 for image in images)
    return np.stack([_as_int8(execute_onnx(wrapper, {IMAGE: picture})[MAP][0] / scale) for picture in pictures])


def check_parity(reference: Int8, answers: Mapping[str, Int8]) -> None:
    """Raises: NotExactError naming the engine and how far off it is."""
    for engine, maps in answers.items():
        if not np.array_equal(maps, reference):
            wrong = int((maps != reference).sum())
            raise NotExactError(
                f"{engine} differs from the integer reference in {wrong} of {reference.size} pixels: "
                "this version of it is not exact; install the pinned one and export again"
            )


def _as_int8(values: NDArray[np.float32]) -> IntegerMaps:
    """subtle: a value that is no integer of int8 must not become one by a cast."""
    integers = values.astype(np.int8)
    if not np.array_equal(integers, values):
        raise NotExactError("an engine answered with numbers that are no int8: it rounds or saturates differently")
    return integers
