"""card.md and heatmaps.png: what a model is, how well it was measured to work, and what it looks at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from host.integers import Cost
from protocol.manifest import Manifest

HEATMAPS_PNG = "heatmaps.png"
CARD_MD = "card.md"
TILE_PX = 128

Images = NDArray[np.uint8]

FIGURES = {
    "image_auroc": "image AUROC",
    "float_image_auroc": "image AUROC of the float network",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO (false-positive rate up to 0.3)",
    "recall": "recall on defective pictures at the threshold",
    "false_reject_rate": "good pictures rejected at the threshold",
}
COUNTS = {
    "train_pictures": "good pictures trained on",
    "held_out_pictures": "good pictures held out for the threshold",
    "test_good": "good test pictures",
    "test_defective": "defective test pictures",
}


def write_card(manifest: Manifest, description: str, costs: Sequence[Cost]) -> str:
    """Markdown, from the manifest's own figures."""
    sections = [
        f"# {manifest.id}\n\n{description}: finds defects on the product *{manifest.product}*; trained on good "
        f"pictures alone, with synthetic defects. {_size(manifest)}",
        f"## Measured\n\n{_figures(manifest)}",
        f"![pictures, heat-maps and true masks]({HEATMAPS_PNG})",
        f"## Threshold\n\nA part is rejected at a score of {manifest.threshold.value:g} or above: "
        f"{manifest.threshold.method}. No defective picture took part in setting it or any other setting.",
        f"## Cost\n\n{_cost_table(costs)}",
        "## Provenance\n\n" + "\n".join(f"- {key}: `{value}`" for key, value in manifest.provenance.items()),
    ]
    return "\n\n".join(sections) + "\n"


def draw_heatmaps(images: Images, anomaly: NDArray[np.float32], masks: NDArray[np.bool_]) -> bytes:
    """PNG: pictures uint8 (n, h, w, 3) above their heat-maps above their true masks, from logits (n, h', w')."""
    columns = [np.vstack(_column(*tiles)) for tiles in zip(images, anomaly, masks, strict=True)]
    picture = cv2.cvtColor(np.hstack(columns), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def _column(image: Images, logits: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[Images]:
    size = (TILE_PX, TILE_PX)
    tile = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    likely = (255 / (1 + np.exp(-logits))).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(cv2.resize(likely, size), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    truth = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    return [tile, np.asarray(heat, np.uint8), np.asarray(cv2.cvtColor(truth, cv2.COLOR_GRAY2RGB), np.uint8)]


def _size(manifest: Manifest) -> str:
    cost = manifest.cost
    return f"{cost['macs'] / 1e6:.1f} M multiply-accumulates a picture, {cost['weight_bytes'] / 1e3:.0f} kB of weights."


def _figures(manifest: Manifest) -> str:
    lines = ["| on the exported integers, through ONNX Runtime | |", "|---|---|"]
    lines += [f"| {text} | {manifest.figures[key]:.4f} |" for key, text in FIGURES.items() if key in manifest.figures]
    lines += [f"| {text} | {manifest.figures[key]:.0f} |" for key, text in COUNTS.items() if key in manifest.figures]
    if "image_auroc" not in manifest.figures:
        lines += ["", "There were no labelled test pictures: how many defects it finds has not been measured."]
    return "\n".join(lines)


def _cost_table(costs: Sequence[Cost]) -> str:
    lines = ["| layer | output | M MAC | weights, bytes |", "|---|---|---|---|"]
    for cost in costs:
        output = "×".join(map(str, cost.output))
        lines.append(f"| {cost.layer} | {output} | {cost.macs / 1e6:.2f} | {cost.weight_bytes} |")
    macs, weight_bytes = sum(cost.macs for cost in costs), sum(cost.weight_bytes for cost in costs)
    lines.append(f"| **sum** | | **{macs / 1e6:.2f}** | **{weight_bytes}** |")
    return "\n".join(lines)
