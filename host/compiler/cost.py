"""What a network costs for one picture: the table per layer, and how much is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from host.compiler.compilation import compile_net
from host.compiler.table import write_table
from host.compiler.timing import predict
from host.integers.arithmetic import Cost, IntegerNet, costs
from protocol.errors import InputError

# What leaves the overlay at least 200 frames/s at 128 × 128 pixels and 50 at 256 × 256.
MACS_PER_PIXEL = 150e6 / (128 * 128)
MOST_WEIGHT_BYTES = 1_000_000


def summarise_cost(net: IntegerNet) -> dict[str, float]:
    """Of one picture, by the manifest's names."""
    return {**summarise_work(net), "overlay_cycles": predict(compile_net(net).instructions).total}


def summarise_work(net: IntegerNet) -> dict[str, float]:
    """The same without the overlay's cycles, which take seconds to predict."""
    layers = costs(net)
    return {"macs": sum(cost.macs for cost in layers), "weight_bytes": sum(cost.weight_bytes for cost in layers)}


def check_cost(layers: Sequence[Cost], input_px: tuple[int, int]) -> None:
    """Raises: InputError if the network is too large for its input."""
    macs, weight_bytes = sum(cost.macs for cost in layers), sum(cost.weight_bytes for cost in layers)
    most_macs = MACS_PER_PIXEL * input_px[0] * input_px[1]
    if macs > most_macs:
        raise InputError(
            f"the network needs {macs / 1e6:.1f} M multiply-accumulates a picture, {most_macs / 1e6:.0f} M are allowed "
            f"at {input_px[0]}x{input_px[1]} pixels: lower [widths] in the recipe"
        )
    if weight_bytes > MOST_WEIGHT_BYTES:
        raise InputError(
            f"the network has {weight_bytes / 1e3:.0f} kB of weights, {MOST_WEIGHT_BYTES / 1e3:.0f} kB are allowed: "
            "lower [widths] in the recipe"
        )


def write_cost_table(net: IntegerNet) -> str:
    """Markdown; the overlay's cycles are predicted."""
    return write_table(compile_net(net))
