"""card.md and heatmaps.png: what a model is, how well it was measured to work, and what it looks at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from host.export.order import RECIPE_TOML
from host.export.seeds import MEAN, WORST
from protocol.fitness import NOT_JUDGED, Fitness
from protocol.manifest import Challenge, Manifest

HEATMAPS_PNG = "heatmaps.png"
INSPECTED_JPG = "inspected.jpg"
CARD_MD = "card.md"
CHALLENGE_HEAD = "## Known-bad parts"
TILE_PX = 128

Images = NDArray[np.uint8]

FIGURES = {
    "image_auroc": "image AUROC",
    "float_image_auroc": "image AUROC of the float network",
    "integer_loss": "image AUROC lost from float to integers",
    "image_aupr": "image AUPR",
    "image_best_f1": "image F1, best of all thresholds",
    "image_f1": "image F1 at the threshold",
    "image_iou": "image IoU at the threshold",
    "recall": "recall on defective pictures at the threshold",
    "false_reject_rate": "good pictures rejected at the threshold",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupr": "pixel AUPR",
    "aupro": "AUPRO (false-positive rate up to 0.3)",
    "pixel_best_dice": "pixel Dice (F1), best of all thresholds",
    "pixel_best_iou": "pixel IoU, best of all thresholds",
    "pixel_dice": "pixel Dice (F1) at the threshold",
    "pixel_iou": "pixel IoU at the threshold",
}
KIND_FIGURES = {"image_auroc": "image AUROC", "recall": "recall", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
COUNTS = {
    "train_pictures": "good pictures trained on",
    "held_out_pictures": "good pictures held out for the threshold",
    "test_good": "good test pictures",
    "test_defective": "defective test pictures",
}


# Of the ARM engine's kernels on a Cortex-A9 at 650 MHz, and how far off that may be: tests/armhf/ESTIMATE.md.
ARM_MACS_PER_S, ARM_UNCERTAINTY = 0.67e9, 1.5


def write_card(
    manifest: Manifest, description: str, cost_table: str, remarks: Sequence[str], report: Sequence[str] = ()
) -> str:
    """Markdown, from the manifest's own figures."""
    what = (
        f"{description}: finds defects on the product *{manifest.product}*; trained on good pictures alone, with "
        f"synthetic defects. {_size(manifest)}"
    )
    more = [
        f"## Cost\n\n{cost_table}\n\n{_arm_time(manifest)}",
        f"## To make it again\n\n{_reproduction(manifest)}",
    ]
    if report:
        more = [write_pictures(report, f"![what is inspected]({INSPECTED_JPG})"), *more]
    return join_card(manifest, what, remarks, "integers", more)


def write_pictures(report: Sequence[str], shown: str = "") -> str:
    """The section on what was taken for what."""
    lines = "\n".join(f"- {line}" for line in report)
    return f"## Pictures\n\n{lines}" + (f"\n\n{shown}" if shown else "")


def join_card(manifest: Manifest, what: str, remarks: Sequence[str], measured_on: str, more: Sequence[str] = ()) -> str:
    """Markdown: verdict, what it is, remarks, figures of the exported `measured_on`, more sections, provenance."""
    sections = [
        f"# {manifest.id}\n\n{write_verdict(manifest.fitness)}\n\n{what}",
        *(f"**To look at:** {remark}." for remark in remarks),
        *_write_figures(manifest, f"on the exported {measured_on}, through ONNX Runtime"),
        *more,
        write_provenance(manifest),
    ]
    return "\n\n".join(sections) + "\n"


def write_verdict(fitness: Fitness | None) -> str:
    """What whoever reads only one line has to know."""
    if fitness is None:
        return f"**Verdict: {NOT_JUDGED}.** Nothing was measured that says whether it sees its product's defects."
    if not fitness.concerns:
        return f"**Verdict: {fitness.describe()}.**"
    lines = [f"- {concern.grade}: {concern.why}" for concern in fitness.concerns]
    warning = " No station takes it unless told to." if fitness.grade == "unfit" else ""
    return "\n".join([f"**Verdict: {fitness.grade}.**{warning}\n", *lines, f"\nWhat to do: {fitness.advise()}."])


def insert_verdict(card: str, fitness: Fitness, before: Fitness | None) -> str:
    """Into a card that was written without one, or in place of the one `before`."""
    title, rest = card.split("\n\n", maxsplit=1)
    return f"{title}\n\n{write_verdict(fitness)}\n\n{rest.removeprefix(write_verdict(before)).lstrip()}"


def write_provenance(manifest: Manifest) -> str:
    return "## Provenance\n\n" + "\n".join(f"- {key}: `{value}`" for key, value in manifest.provenance.items())


def _write_figures(manifest: Manifest, measured_on: str) -> list[str]:
    """Sections of Markdown: figures, by kind of defect, what it looks at, the threshold."""
    return [
        f"## Measured\n\n{_figures(manifest, measured_on)}",
        *([f"### By kind of defect\n\n{_kinds(manifest)}"] if _list_kinds(manifest) else []),
        f"![pictures, heat-maps and true masks]({HEATMAPS_PNG})",
        f"## Threshold\n\nA part is rejected at a score of {manifest.threshold.value:g} or above: "
        f"{manifest.threshold.method}. No test picture took part in setting it or any other setting.",
        *([write_challenge(manifest.challenge)] if manifest.challenge else []),
    ]


def write_challenge(challenge: Challenge) -> str:
    """The section on the frames of known-bad parts."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in challenge.kinds.items())
    return (
        f"{CHALLENGE_HEAD}\n\nFinds {challenge.found} of the {challenge.frames} known-bad parts that it carries "
        f"({kinds}). They were made from held-out good pictures"
        + (", or labelled for it in `validation/`" if any(kind.startswith("real ") for kind in challenge.kinds) else "")
        + ", never from test pictures. The station shows them to the model again and again, and passes nothing while "
        f"fewer than {challenge.fewest()} are found."
    )


def insert_challenge(card: str, manifest: Manifest) -> str:
    """Into a card that was written without it, or for other frames."""
    if manifest.challenge is None:
        return card
    sections = [part for part in card.rstrip("\n").split("\n\n## ") if f"## {part}".split("\n")[0] != CHALLENGE_HEAD]
    place = 1 + next(index for index, part in enumerate(sections) if part.startswith("Threshold\n"))
    sections.insert(place, write_challenge(manifest.challenge).removeprefix("## "))
    return "\n\n## ".join(sections[:-1]) + "\n\n" + write_provenance(manifest) + "\n"


def draw_heatmaps(images: Images, anomaly: NDArray[np.float32], masks: Sequence[NDArray[np.bool_]]) -> bytes:
    """PNG: pictures uint8 (n, h, w, 3) above their heat-maps above their true masks, from logits (n, h', w').

    Masks may be of any size.
    """
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


def _arm_time(manifest: Manifest) -> str:
    milliseconds = manifest.cost["macs"] / ARM_MACS_PER_S * 1e3
    low, high = milliseconds / ARM_UNCERTAINTY, milliseconds * ARM_UNCERTAINTY
    return (
        f"On one of the board's ARM cores, with the engine's own kernels, about {milliseconds:.0f} ms a frame "
        f"({low:.0f} to {high:.0f}): estimated from counted instructions (`beltsight estimate`), on no board yet."
    )


def _figures(manifest: Manifest, measured_on: str) -> str:
    """Of several seeds, mean and worst beside the shipped network's."""
    figures = manifest.figures
    several = "seeds" in figures
    head = [f" {manifest.id} ", f" mean of {figures['seeds']:.0f} seeds ", " worst "] if several else [" "]
    lines = [
        f"| {measured_on} |" + "|".join(head) + "|",
        "|---" * (1 + len(head)) + "|",
    ]
    for key, text in FIGURES.items():
        if key in figures:
            keys = (key, key + MEAN, key + WORST) if several else (key,)
            lines.append(f"| {text} | " + " | ".join(f"{figures[one]:.4f}" for one in keys) + " |")
    for key, text in COUNTS.items():
        if key in figures:
            lines.append(f"| {text} | {figures[key]:.0f} |" + " |" * (len(head) - 1))
    if "image_auroc" not in figures:
        lines += ["", "There were no labelled test pictures: how many defects it finds has not been measured."]
    elif "pixel_auroc" in figures:
        lines += ["", "Pixels are those of the test pictures themselves; the map is enlarged to them bilinearly."]
    return "\n".join(lines)


def _list_kinds(manifest: Manifest) -> list[str]:
    return sorted(name.split(":", 1)[1] for name in manifest.figures if name.startswith("test_defective:"))


def _kinds(manifest: Manifest) -> str:
    """Each kind of defect against all good test pictures."""
    figures = manifest.figures
    lines = ["| kind | pictures | " + " | ".join(KIND_FIGURES.values()) + " |", "|---" * (2 + len(KIND_FIGURES)) + "|"]
    for kind in _list_kinds(manifest):
        values = (figures.get(f"{key}:{kind}") for key in KIND_FIGURES)
        shown = ("–" if value is None else f"{value:.4f}" for value in values)
        named = kind.replace("|", "\\|")
        lines.append(f"| {named} | {figures[f'test_defective:{kind}']:.0f} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _reproduction(manifest: Manifest) -> str:
    source = manifest.provenance
    where = "" if source["data"] == "rendered" else f"`{source['data']}` is the folder of pictures. "
    return (
        f"With the source at commit `{source['commit']}`:\n\n```sh\n{source['command']}\n```\n\n"
        f"`{RECIPE_TOML}` lies beside this card. {where}On the same machine the network is the same to the bit; "
        "on another one float training rounds differently, and the figures move a little."
    )
