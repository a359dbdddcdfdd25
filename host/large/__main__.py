"""A large detector for the server's second opinion: PatchCore on a pretrained backbone, as one ONNX graph.

    beltsight large --product bottle --data mvtec-bottle --backbone-weights squeezenet1_1.pth
    beltsight large --product bottle --data mvtec-bottle --backbone wide_resnet50_2     # torchvision downloads it

Nothing is trained: features of good pictures are remembered. The graph is float32 inside, with an int8 map like every
model's, so that the server serves it beside the others. No board runs it.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from torch.utils.flop_counter import FlopCounterMode

from board.preprocess import preprocess
from host.export.__main__ import draw_examples, draw_golden_frames, find_remarks
from host.export.card import CARD_MD, HEATMAPS_PNG, join_card
from host.export.challenge import judge_by, make_challenge
from host.export.measurement import Measurement, measure
from host.export.order import check_room, source_commit
from host.export.package import encode_golden, publish, write_files
from host.integers.parity import run_onnxruntime
from host.large.patchcore import SCALE, PatchCore, as_images, build_patchcore, float_maps, write_onnx
from host.learning.backbone import BACKBONES, BackboneName, load_backbone
from host.learning.recipe import Recipe
from host.pictures.dataset import Dataset, load_dataset
from host.pictures.inspected import INPUT_MULTIPLE_PX
from host.pictures.reading import digest
from protocol.errors import InputError, run_main
from protocol.known_bad import CHALLENGE_BIN
from protocol.manifest import FORMAT, GOLDEN_NPZ, MODEL_ONNX, AnomalyMap, Golden, Manifest

# PatchCore takes the highest patch; the mean of three is one that a single patch cannot set alone
RECIPE = Recipe(input_px=256, top_pixels=3, pairs=4)
GOLDEN_TOLERANCE = 1  # map steps: sums of floats are ordered differently on other processors, and ties fall otherwise
ROOM_BYTES = 1 << 30


@dataclass(frozen=True)
class LargeOrder:
    product: str
    data: Path
    backbone: BackboneName
    backbone_weights: Path | None
    input_px: int
    bank: int  # patches that are remembered
    seed: int
    out: Path
    id: str

    @property
    def target(self) -> Path:
        return self.out / self.id


def main() -> int:
    order = parse_order(sys.argv[1:])
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    started_s = time.monotonic()
    target = build(order)
    print((target / CARD_MD).read_text().split("\n![", maxsplit=1)[0])
    print(f"\nmodel package: {target}, in {time.monotonic() - started_s:.0f} s")
    return 0


def parse_order(words: list[str]) -> LargeOrder:
    """Raises: InputError for an option that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="beltsight large", description="Make a large detector for the server from good pictures."
    )
    add = parser.add_argument
    add("--product", required=True, help="name of the product, for example bottle")
    add("--data", required=True, type=Path, help="folder of pictures (host/README.md says how it is laid out)")
    add("--backbone", choices=BACKBONES, default=BACKBONES[0], help="torchvision's name (default: %(default)s)")
    add("--backbone-weights", type=Path, help="torchvision's file of its weights; without, torchvision downloads it")
    add("--input-px", type=int, default=RECIPE.input_px, help="side of the network's image (default: %(default)s)")
    add("--bank", type=int, default=2000, help="patches that are remembered, 10..20000 (default: %(default)s)")
    add("--seed", type=int, default=0, help="number that the random choices start from (default: 0)")
    add("--out", type=Path, default=Path("models"), help="folder of the packages (default: models)")
    add("--id", help="name of the package (default: <product>-large)")
    given = parser.parse_args(words)
    identity = given.id or f"{given.product}-large"
    if not identity.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"id {identity!r} must be letters, digits, '-' and '_': correct --id or --product")
    if not 10 <= given.bank <= 20_000 or not 0 <= given.seed < 1000:
        raise InputError("--bank must be 10..20000 and --seed 0..999: correct them")
    if not 64 <= given.input_px <= 1024 or given.input_px % INPUT_MULTIPLE_PX:
        raise InputError(f"--input-px must be a multiple of {INPUT_MULTIPLE_PX} in 64..1024: correct it")
    given.id = identity
    return LargeOrder(**vars(given))


def build(order: LargeOrder) -> Path:
    """The finished package's folder. Raises: InputError."""
    order.out.mkdir(parents=True, exist_ok=True)
    check_room(order.out, ROOM_BYTES)
    backbone = load_backbone(order.backbone, order.backbone_weights)
    recipe = replace(RECIPE, input_px=order.input_px)
    dataset = load_dataset(order.data, recipe.held_out_share, recipe.input_px, is_square=True)
    remarks = find_remarks(dataset)
    for remark in remarks:
        print(f"warning: {remark}", file=sys.stderr)
    model = build_patchcore(backbone, dataset.train, dataset.held_out, order.bank, order.seed)
    graph = write_onnx(model, dataset.how.input_px)
    golden = make_golden(graph, dataset, order.seed)
    meaning = AnomalyMap((golden.maps.shape[1], golden.maps.shape[2]), SCALE, recipe.top_pixels)
    measured = measure(graph, float_maps(model, dataset.test), dataset, meaning, recipe)
    described = describe(order, dataset, model=model, graph=graph, meaning=meaning, measured=measured)
    judge, threshold = judge_by(graph, meaning), measured.threshold.value
    challenge, known_bad = make_challenge(dataset.pictures, dataset.how, judge, threshold, order.seed)
    manifest = replace(described, challenge=challenge)
    files = {
        MODEL_ONNX: graph.SerializeToString(deterministic=True),
        GOLDEN_NPZ: encode_golden(golden, GOLDEN_TOLERANCE),
        CARD_MD: write_card(manifest, order, remarks).encode(),
        HEATMAPS_PNG: draw_examples(dataset, graph, SCALE),
        CHALLENGE_BIN: known_bad,
    }
    unfinished = order.out / f".{order.id}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    write_files(unfinished / "package", manifest, files)
    publish(unfinished / "package", order.target)
    shutil.rmtree(unfinished)
    return order.target


def make_golden(graph: onnx.ModelProto, dataset: Dataset, seed: int) -> Golden:
    frames = draw_golden_frames(dataset, seed)
    images = np.stack([preprocess(frame, dataset.how) for frame in frames])
    return Golden(frames, images, run_onnxruntime(graph, images))


def describe(
    order: LargeOrder,
    dataset: Dataset,
    *,
    model: PatchCore,
    graph: onnx.ModelProto,
    meaning: AnomalyMap,
    measured: Measurement,
) -> Manifest:
    """All but the files."""
    weights = order.backbone_weights
    words = ["python", "-m", "host.large", "--product", order.product, "--data", order.data.resolve().name]
    words += ["--backbone", order.backbone, *(["--backbone-weights", weights.name] if weights else [])]
    words += ["--input-px", str(order.input_px), "--bank", str(order.bank), "--seed", str(order.seed), "--id", order.id]
    pictures = dataset.pictures
    return Manifest(
        format=FORMAT,
        id=order.id,
        product=order.product,
        preprocess=dataset.how,
        map=meaning,
        threshold=measured.threshold,
        files={},
        cost={"macs": count_macs(model, dataset), "weight_bytes": len(graph.SerializeToString())},
        figures=measured.figures,
        provenance={
            "command": shlex.join(words),
            "data": order.data.resolve().name,
            "data_sha256": digest([*pictures.train, *pictures.held_out]),
            "backbone": order.backbone,
            "backbone_sha256": digest([weights]) if weights else "torchvision's",
            "seed": str(order.seed),
            "commit": source_commit(),
        },
        calibration=measured.calibration,
    )


def count_macs(model: PatchCore, dataset: Dataset) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(as_images(dataset.held_out[0]))
    return int(counter.get_total_flops()) // 2


def write_card(manifest: Manifest, order: LargeOrder, remarks: list[str]) -> str:
    cost = manifest.cost
    what = (
        f"PatchCore on {order.backbone}, {order.bank} patches remembered: finds defects on the "
        f"product *{manifest.product}*; saw good pictures alone. For the server: {cost['macs'] / 1e9:.2f} G "
        f"multiply-accumulates a picture, {cost['weight_bytes'] / 1e6:.1f} MB. In float32 inside: on another processor "
        f"the map may be off by {GOLDEN_TOLERANCE} step."
    )
    return join_card(manifest, what, remarks, "graph")


if __name__ == "__main__":
    sys.exit(run_main(main))
