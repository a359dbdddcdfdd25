"""Pretrained weights, from local files alone: nothing is downloaded, nothing runs on random features instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Names of the files, as torchvision and the converted sets call them; the first that is there is taken.
FILES: dict[str, tuple[str, ...]] = {
    "squeezenet1_1": ("squeezenet1_1_features.pth", "squeezenet1_1.pth", "squeezenet1_1-b8a52dc0.pth"),
    "mobilenet_v1": ("mobilenet_v1_1.0_224.npz",),
    "resnet18": ("resnet18.pth", "resnet18-f37072fd.pth"),
    "wide_resnet50_2": ("wide_resnet50_2.pth", "wide_resnet50_2-32ee1156.pth"),
    "vgg16": ("vgg16.pth", "vgg16-397923af.pth"),
}


@dataclass(frozen=True)
class Weights:
    folder: Path | None

    def find(self, name: str) -> Path | None:
        """The file of a network's weights, or None."""
        if self.folder is None:
            return None
        return next((self.folder / file for file in FILES[name] if (self.folder / file).is_file()), None)

    def explain(self, name: str) -> str:
        """Why there are none, and what to do."""
        where = (
            "no --weights folder was given" if self.folder is None else f"--weights has no {' or '.join(FILES[name])}"
        )
        return f"no weights of {name}: {where}; put torchvision's file there"
