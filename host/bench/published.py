"""What the literature reports, beside which the report puts what was measured here. All shares of 1.

Only where data and protocol are the same is a difference a finding: `protocol` says what the source did.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    value: float
    figure: str  # by the name in host/bench/figures.py
    source: str
    protocol: str


DIGITS = (0.881, 0.675, 0.953, 0.801, 0.827, 0.864, 0.849, 0.682, 0.856, 0.558)
# Its paper designates a class as the anomaly, and that a 1 is found worst says so too: where 1 is normal it is easiest.
# What its authors' code does: https://github.com/samet-akcay/ganomaly, lib/model.py.
DIGIT_IS_ANOMALY = (
    "a digit is the anomaly, the other nine are normal (--class-is anomalous); "
    "of 15 epochs the best by the AUROC of the test pictures, normalised by statistics of their own batches"
)
RESNET18 = "ImageNet weights of ResNet-18, 256×256, all 209 good pictures, seed 42"
WIDE = "ImageNet weights of Wide ResNet-50-2, 256×256, all 209 good pictures, seed 42"
ANOMALIB = "Anomalib's benchmark, MVTec bottle"

PUBLISHED: dict[tuple[str, str], Published] = {
    **{
        ("ganomaly", f"mnist:not-{digit}"): Published(
            value, "image_auroc", "GANomaly, Akçay et al. 2018, MNIST", DIGIT_IS_ANOMALY
        )
        for digit, value in enumerate(DIGITS)
    },
    ("ae", "mnist:mean"): Published(
        0.935, "image_auroc", "the best autoencoder's mean over the digits", "each digit is normal in turn"
    ),
    ("alexnet-ae-l2", "mvtec-bottle"): Published(
        0.78, "labelled_30_f1", "AlexNet-shaped autoencoder on bottle", "threshold on 30 % of the test set, F on 70 %"
    ),
    ("padim", "mvtec-bottle"): Published(0.994, "image_auroc", ANOMALIB, RESNET18),
    ("padim-wide_resnet50_2", "mvtec-bottle"): Published(0.999, "image_auroc", ANOMALIB, WIDE),
    ("patchcore", "mvtec-bottle"): Published(1.0, "image_auroc", ANOMALIB, RESNET18),
    ("patchcore-wide_resnet50_2", "mvtec-bottle"): Published(1.0, "image_auroc", ANOMALIB, WIDE),
    ("anomalib-cflow", "mvtec-bottle"): Published(1.0, "image_auroc", ANOMALIB, WIDE),
    ("anomalib-fastflow", "mvtec-bottle"): Published(1.0, "image_auroc", ANOMALIB, RESNET18),
    ("anomalib-stfpm", "mvtec-bottle"): Published(0.979, "image_auroc", ANOMALIB, RESNET18),
    ("anomalib-dfm", "mvtec-bottle"): Published(1.0, "image_auroc", ANOMALIB, RESNET18),
    ("anomalib-dfkde", "mvtec-bottle"): Published(0.951, "image_auroc", ANOMALIB, RESNET18),
}


def find_published(detector: str, problem: str) -> Published | None:
    """Of the method where there is none of the detector: `padim-mobilenet_v1` is compared with what PaDiM reached."""
    method = detector.removeprefix("anomalib-").partition("-")[0]
    names = (name for name in (detector, detector.removeprefix("anomalib-"), method) if (name, problem) in PUBLISHED)
    return next((PUBLISHED[name, problem] for name in names), None)
