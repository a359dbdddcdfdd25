"""Which pictures of a folder are good, which defective, of what kind, where, and what each may be used for.

The one place that knows the layouts people have: folders by the words of `roles.py`, and files of labels by
`labels.py` (COCO, YOLO, Label Studio, VisA's table). What it takes for what is told, and so is what it does not use.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from protocol.errors import InputError
from protocol.pictures.files import shown
from protocol.pictures.labels import Label, read_labels
from protocol.pictures.roles import GOOD_FOLDERS, USES, Role, Use, find_role, is_good
from protocol.pictures.truth import NOWHERE, Truth
from protocol.pictures.walk import Found, walk

MASK_ENDS = ("_mask", "-mask", ".mask", "_gt", "_label", "_ground_truth")
IGNORE_PNG = "ignore.png"
LISTED = 4


@dataclass(frozen=True)
class Picture:
    path: Path
    kind: str  # "" for a good part, else the kind of defect
    use: Use
    truth: Truth = NOWHERE


@dataclass(frozen=True)
class PictureSet:
    layout: str  # in words
    pictures: tuple[Picture, ...]  # by folder, then by name
    unused: tuple[str, ...] = ()  # "12 pictures: why"
    doubts: tuple[str, ...] = ()
    ignore: Path | None = None  # white where nothing is to be looked at
    is_flat: bool = False  # one folder, of which nothing says that its pictures are good

    def report(self) -> list[str]:
        """What was taken for what, in lines for a person."""
        good = sum(not picture.kind for picture in self.pictures)
        kinds = Counter(picture.kind for picture in self.pictures if picture.kind)
        bad = sum(kinds.values())
        masked = sum(bool(picture.truth) for picture in self.pictures if picture.kind)
        rough = sum(picture.truth.is_rough for picture in self.pictures if picture.kind)
        what = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        lines = [f"{self.layout}: {good} good, {bad} defective" + (f" ({what})" if what else "")]
        if bad:
            boxes = f", {rough} of them boxes, which hold more than the defect" if rough else ""
            lines.append(f"{masked} of {bad} defective pictures have masks{boxes}")
        if self.unused:
            lines.append("not used: " + "; ".join(self.unused))
        return lines


def list_set(folder: Path) -> PictureSet:
    """Raises: InputError for a folder that is none, holds several products, or has labels that are not read."""
    if not folder.is_dir():
        raise InputError(f"no folder {shown(folder)}: give --data a folder of pictures, or 'rendered'")
    found = walk(_enter(folder))
    ignore = _take_ignore(found)
    _require_one_product(found)
    labels = read_labels(found)
    return replace(_by_labels(found, labels) if labels else _by_folders(found), ignore=ignore)


def _take_ignore(found: Found) -> Path | None:
    """`ignore.png` of the set's own folder is no picture."""
    beside = found.pictures.get((), [])
    ignore = next((path for path in beside if path.name.lower() == IGNORE_PNG), None)
    if ignore:
        found.pictures[()] = [path for path in beside if path != ignore]
        if not found.pictures[()]:
            del found.pictures[()]
    return ignore


def _enter(folder: Path) -> Path:
    """The one folder in it, as archives leave it, where that has the set's own folders."""
    inside = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    if len(inside) != 1 or not inside[0].is_dir() or find_role((inside[0].name,)) != Role("", shown(inside[0].name)):
        return folder
    below = [path.name.lower() for path in inside[0].iterdir() if path.is_dir()]
    return inside[0] if any(name in USES for name in below) else folder


def _require_one_product(found: Found) -> None:
    """Raises: InputError for MVTec's, VisA's or BTAD's whole set."""
    products = set()
    for folders in found.pictures:
        if len(folders) >= 2 and find_role(folders[:1]).label and not is_good(folders[0]):
            words = [name.lower() for name in folders[1:]]
            if words[0] == "train" or words[:2] == ["data", "images"]:
                products.add(shown(folders[0]))
    if len(products) > 1:
        listed = ", ".join(sorted(products)[:LISTED])
        raise InputError(f"{shown(found.root)} holds several products ({listed}, …): give --data the folder of one")


def _by_labels(found: Found, labels: dict[Path, Label]) -> PictureSet:
    pictures, unlabelled = [], 0
    for folders in found.folders():
        role = find_role(folders)
        for path in found.pictures[folders]:
            label = labels.get(path)
            if label is None or role.is_truth:
                unlabelled += 1
                continue
            kind = "" if is_good(label.kind) else label.kind
            pictures.append(Picture(path, kind, label.use or role.use, label.truth if kind else NOWHERE))
    return _finish("labels in files", pictures, found, {"without a label": unlabelled})


def _by_folders(found: Found) -> PictureSet:
    roles = {folders: find_role(folders) for folders in found.folders()}
    masks = _Masks(found, roles)
    labelled = any(role.label for role in roles.values() if not role.is_truth and not role.is_unlabelled)
    pictures: list[Picture] = []
    unused = Counter[str]()
    for folders, role in roles.items():
        paths = [path for path in found.pictures[folders] if path not in masks.paths and not _is_stroke(path)]
        unused["Label Studio's brush masks: export its JSON too"] += sum(map(_is_stroke, found.pictures[folders]))
        if role.is_truth or not paths:
            continue
        if role.is_unlabelled or (not role.label and (labelled or role.use in ("test", "validation"))):
            unused[f"no folder says whether {shown('/'.join(folders) or 'they')} are good"] += len(paths)
            continue
        kind = "" if role.is_good or not role.label else role.label
        pictures += [Picture(path, kind, role.use, masks.take(role.label, path) if kind else NOWHERE) for path in paths]
    unused["masks that belong to no defective picture"] = masks.left()
    if labelled and not any(not picture.kind for picture in pictures):
        names = ", ".join(GOOD_FOLDERS[:-1])
        raise InputError(f"{shown(found.root)} has no folder of good pictures: name it {names} or {GOOD_FOLDERS[-1]}")
    if labelled or any(role.use for role in roles.values()):
        return _finish("folders", pictures, found, unused)
    return replace(_finish("one folder of good pictures", pictures, found, unused), is_flat=True)


def _finish(layout: str, pictures: list[Picture], found: Found, unused: dict[str, int]) -> PictureSet:
    if any(picture.use == "train" for picture in pictures):
        unused["beside the folders for training and tests"] = sum(not picture.use for picture in pictures)
        pictures = [picture for picture in pictures if picture.use]
    left = Counter(unused) + found.unused  # without what was counted as none
    lines = tuple(f"{count} {'file' if count == 1 else 'files'}: {reason}" for reason, count in sorted(left.items()))
    doubts = []
    names = Counter((picture.path.parent, os.path.normcase(picture.path.stem.lower())) for picture in pictures)
    alike = sum(count > 1 for count in names.values())
    if alike:
        doubts.append(f"{alike} names stand for several pictures that differ in case or ending alone")
    return PictureSet(layout, tuple(pictures), lines, tuple(doubts))


class _Masks:
    """Mask files by the kind of defect and the name of the picture that they may belong to."""

    def __init__(self, found: Found, roles: dict[tuple[str, ...], Role]) -> None:
        self.paths: set[Path] = set()
        self._by_name: dict[tuple[str, str], list[Path]] = {}
        self._by_lower: dict[tuple[str, str], list[Path]] = {}  # where a name differs in case alone
        self._taken: set[Path] = set()
        for folders, role in roles.items():
            if role.is_truth:
                for path in found.pictures[folders]:
                    self._add(role.label, path)
            else:
                self._add_beside(role.label, found.pictures[folders])

    def take(self, label: str, path: Path) -> Truth:
        """Those of a picture: of its kind, else of its name alone."""
        for kind in (label, ""):
            files = self._by_name.get((kind, path.stem)) or self._by_lower.get((kind.lower(), path.stem.lower()))
            if files:
                self._taken.update(files)
                return Truth(files=tuple(dict.fromkeys(files)))
        return NOWHERE

    def left(self) -> int:
        return len(self.paths - self._taken)

    def _add(self, label: str, path: Path) -> None:
        self.paths.add(path)
        kind, slash, _ = label.rpartition("/")
        places = [(label, path.stem), (label, _bare(path.stem))]
        if slash:  # MVTec LOCO: a folder of masks for each picture
            places.append((kind, path.parent.name))
        for place in dict.fromkeys(places):
            self._by_name.setdefault(place, []).append(path)
        for place in {(label.lower(), name.lower()) for label, name in places}:
            self._by_lower.setdefault(place, []).append(path)

    def _add_beside(self, label: str, paths: list[Path]) -> None:
        """Roboflow's semantic masks, and what people make by hand: `x_mask.png` beside `x.jpg`."""
        stems = {path.stem for path in paths}
        for path in paths:
            if _bare(path.stem) != path.stem and _bare(path.stem) in stems:
                self._add(label, path)


def _is_stroke(path: Path) -> bool:
    """A mask by its name, which does not tell whose it is."""
    return re.match(r"task-\d+-annotation-\d+-by-", path.name) is not None


def _bare(stem: str) -> str:
    for end in MASK_ENDS:
        if stem.lower().endswith(end):
            return stem[: -len(end)]
    return stem.removeprefix("mask_")
