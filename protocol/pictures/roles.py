"""What the names of folders say. The one table of words; all layouts of folders come from it.

train/good  test/<kind>  ground_truth/<kind>/<name>_mask.png    MVTec AD, MPDD, VAD, converted VisA, the rendered parts
train/good  test_public/<kind>  test_public/ground_truth/…      MVTec AD 2
train/ok  test/ko  ground_truth/ko/<name>.png                   BTAD
test/logical_anomalies  ground_truth/<kind>/<name>/*.png        MVTec LOCO
Data/Images/Normal  Data/Images/Anomaly  Data/Masks/Anomaly     VisA as published
good  crack  mask/crack  normal_test                            Anomalib's folder; folders that people make
train/<class>  valid/<class>  test/<class>                      Roboflow's folders
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from protocol.pictures.files import shown

Use = Literal["train", "validation", "test", ""]

GOOD_FOLDERS = ("good", "ok", "fresh", "normal")  # those that messages name
MORE_GOOD = ("nominal", "pass", "passed", "defect_free", "no_defect", "goods")
GOOD_TO_TEST = ("normal_test", "good_test", "test_normal", "test_good")
USES: dict[str, Use] = {
    "train": "train", "training": "train", "valid": "validation", "val": "validation", "validation": "validation",
    "test": "test", "testing": "test", "test_public": "test",
}  # fmt: skip
UNLABELLED = ("test_private", "test_private_mixed", "unlabelled", "unlabeled")
TRUTH = ("ground_truth", "groundtruth", "gt", "mask", "masks", "ground_truths")
HOLDERS = ("images", "image", "imgs", "img", "data", "pictures", "labels", "annotations")  # they say nothing


@dataclass(frozen=True)
class Role:
    use: Use
    label: str  # what is left of the names; "" where no folder says what its pictures show
    is_truth: bool = False
    is_unlabelled: bool = False

    @property
    def is_good(self) -> bool:
        return is_good(self.label)


def is_good(label: str) -> bool:
    return label.lower() in (*GOOD_FOLDERS, *MORE_GOOD)


def find_role(folders: tuple[str, ...]) -> Role:
    """Of a folder by its names below the set's own."""
    use: Use = ""
    label, is_truth, is_unlabelled = [], False, False
    for name in folders:
        word = name.lower()
        if word in USES and not use:
            use = USES[word]
        elif word in TRUTH:
            is_truth = True
        elif word in UNLABELLED:
            is_unlabelled = True
        elif word in GOOD_TO_TEST:
            use, label = "test", [GOOD_FOLDERS[0]]
        elif word not in HOLDERS:
            label.append(shown(name))
    return Role(use, "/".join(label), is_truth, is_unlabelled)
