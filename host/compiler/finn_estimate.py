"""What FINN+ estimates for a network's convolutions on this chip: `beltsight finn models/orange-256`.

FINN+ builds hardware for one network: a stage for each layer, all weights in block RAM. Its stages that need no
vendor's tool on this chip are padding, sliding window and matrix product; it has none for residual sums, upsampling,
pooling or concatenation. `--convolutions-only` leaves those out, which flatters it: they cost something.

The folding is FINN+'s own, for the fastest rate whose multipliers fit. Multipliers are counted at two int8 products a
DSP48E1, which is what the chip can do: FINN+ counts four.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

from host.compiler.reader import load_qdq
from host.integers.arithmetic import Conv, IntegerNet
from protocol.errors import InputError, run_main
from protocol.manifest import MODEL_ONNX, load_package

INSTALL = "pip install --no-deps finn-plus click (Python 3.11 or later)"
CLOCK_HZ = 100_000_000
PART = "xc7z020clg400-1"
MOST_DSP = 200  # the overlay's own budget
BRAM18_ON_CHIP = 280
PRODUCTS_PER_DSP = 2
STREAM_BITS = 1024  # as wide as a matrix product may read its weights; FINN+'s default of 36 would slow it down
SLOWEST_CYCLES, FASTEST_CYCLES, FASTER = 4_000_000, 40_000, 0.95  # rates that are tried
DOMAIN = "finn.custom_op.fpgadataflow.rtl"


@dataclass(frozen=True)
class Estimate:
    cycles: int  # of the slowest stage, which is the time from frame to frame
    dsp: int
    bram18: int
    lut: int  # by FINN+, which counts none for matrix products

    @property
    def frames_per_s(self) -> float:
        return CLOCK_HZ / self.cycles

    @property
    def fits(self) -> bool:
        return self.bram18 <= BRAM18_ON_CHIP


def main() -> int:
    parser = argparse.ArgumentParser(prog="beltsight finn", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a model package")
    parser.add_argument("--convolutions-only", action="store_true", help="leave out what FINN+ has no stage for")
    options = parser.parse_args()
    if not is_installed():
        raise InputError(f"FINN+ is not installed: {INSTALL}")
    net = load_qdq(load_package(options.model).path(MODEL_ONNX))
    if not options.convolutions_only:
        check_plain(net)
    print(describe(estimate(net)))
    return 0


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("finn", "click"))


def check_plain(net: IntegerNet) -> None:
    """Raises: InputError naming the first layer that FINN+ has no stage for."""
    for layer in net.layers:
        if not isinstance(layer, Conv):
            raise InputError(
                f"layer {layer.name} ({type(layer).__name__}): FINN+ has no stage for it that needs no vendor's tool; "
                "accepted: convolutions one after the other; or leave the rest out with --convolutions-only"
            )


def describe(result: Estimate) -> str:
    fits = "fits" if result.fits else f"does not fit, the chip has {BRAM18_ON_CHIP}"
    return (
        f"{result.frames_per_s:.0f} frames/s with {result.dsp} DSP and {result.bram18} BRAM18 ({fits}), "
        f"{result.lut:,} LUT without the matrix products'"
    )


def estimate(net: IntegerNet) -> Estimate:
    """The fastest of the rates tried whose multipliers fit into `MOST_DSP`. Needs FINN+."""
    best, target = None, float(SLOWEST_CYCLES)
    with _quiet():
        while target > FASTEST_CYCLES:
            found = _fold(net, round(target))
            if found.dsp <= MOST_DSP and (best is None or found.cycles < best.cycles):
                best = found
            target *= FASTER
    if best is None:
        raise InputError(f"not even {SLOWEST_CYCLES} cycles a frame fit into {MOST_DSP} DSP: take a smaller network")
    return best


def _fold(net: IntegerNet, target_cycles: int) -> Estimate:
    folding = importlib.import_module("finn.transformation.fpgadataflow.set_folding")
    cycles = importlib.import_module("finn.analysis.fpgadataflow.exp_cycles_per_layer")
    resources = importlib.import_module("finn.analysis.fpgadataflow.res_estimation")
    model = make_stages(net).transform(
        folding.SetFolding(target_cycles, mvau_wwidth_max=STREAM_BITS, two_pass_relaxation=False)
    )
    used = model.analysis(functools.partial(resources.res_estimation, fpgapart=PART)).values()
    products = [
        getCustomOp(node).get_nodeattr("PE") * getCustomOp(node).get_nodeattr("SIMD")
        for node in model.graph.node
        if node.op_type == "MVAU_rtl"
    ]
    return Estimate(
        cycles=max(model.analysis(cycles.exp_cycles_per_layer).values()),
        dsp=sum(-(-product // PRODUCTS_PER_DSP) for product in products),
        bram18=round(sum(item["BRAM_18K"] for item in used)),
        lut=round(sum(item["LUT"] for item in used)),
    )


def make_stages(net: IntegerNet) -> ModelWrapper:
    """Padding, window and product of each convolution; an estimate does not ask what lies between."""
    shapes = net.shapes()
    stages = [_Stages(layer, shapes[layer.source]) for layer in net.layers if isinstance(layer, Conv)]
    sources, outputs = ([stage.value(name) for stage in stages] for name in ("in", "out"))
    inner = [stage.value(name) for stage in stages for name in ("padded", "window")]
    nodes = [node for stage in stages for node in stage.nodes()]
    model = ModelWrapper(helper.make_model(helper.make_graph(nodes, "stages", sources, outputs, value_info=inner)))
    for stage in stages:
        model.set_initializer(f"{stage.name}_weights", stage.weights())
        for part in ("in", "padded", "window", "weights"):
            model.set_tensor_datatype(f"{stage.name}_{part}", DataType["INT8"])
        model.set_tensor_datatype(f"{stage.name}_out", DataType["INT32"])
    return model


class _Stages:
    def __init__(self, conv: Conv, source: tuple[int, int, int]) -> None:
        self.name, self.conv = conv.name, conv
        self.channels, *self.side = source
        self.kernel_px = conv.weights.shape[-1]
        self.pad = self.kernel_px // 2
        self.padded = [side + 2 * self.pad for side in self.side]
        self.out = [-(-side // conv.stride) for side in self.side]

    def value(self, part: str) -> Any:
        shapes = {
            "in": (1, *self.side, self.channels),
            "padded": (1, *self.padded, self.channels),
            "window": (1, *self.out, self.kernel_px**2 * self.channels),
            "out": (1, *self.out, len(self.conv.weights)),
        }
        return helper.make_tensor_value_info(f"{self.name}_{part}", TensorProto.FLOAT, shapes[part])

    def weights(self) -> Any:
        """float32 (k · k · in, out), the order of a window."""
        return self.conv.weights.transpose(2, 3, 1, 0).reshape(-1, len(self.conv.weights)).astype(np.float32)

    def nodes(self) -> Iterator[NodeProto]:
        channels = self.channels
        yield self._node(
            "FMPadding_rtl", ["in"], "padded", ImgDim=self.side, Padding=[self.pad] * 4, NumChannels=channels
        )
        yield self._node(
            "ConvolutionInputGenerator_rtl",
            ["padded"],
            "window",
            ConvKernelDim=[self.kernel_px] * 2,
            IFMChannels=channels,
            IFMDim=self.padded,
            OFMDim=self.out,
            Stride=[self.conv.stride] * 2,
            Dilation=[1, 1],
            outputDataType="INT8",
        )
        yield self._node(
            "MVAU_rtl",
            ["window", "weights"],
            "out",
            MW=self.kernel_px**2 * channels,
            MH=len(self.conv.weights),
            PE=1,
            weightDataType="INT8",
            outputDataType="INT32",
            noActivation=1,
            numInputVectors=[1, *self.out],
            mem_mode="internal_decoupled",
        )

    def _node(self, kind: str, sources: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(
            kind,
            [f"{self.name}_{source}" for source in sources],
            [f"{self.name}_{output}"],
            name=f"{self.name}_{output}",
            domain=DOMAIN,
            backend="fpgadataflow",
            SIMD=1,
            inputDataType="INT8",
            **attributes,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """FINN+ wants a folder for its settings, and tells about each folding that it tried."""
    before, level = Path.cwd(), logging.root.manager.disable
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        logging.disable(logging.CRITICAL)
        try:
            importlib.import_module("finn.util.settings").initialize_dummy_settings()
            yield
        finally:
            logging.disable(level)
            os.chdir(before)


if __name__ == "__main__":
    sys.exit(run_main(main))
