"""Files of labels, as labelling tools export them: which picture shows a defect, of what kind, and where.

_annotations.coco.json                      COCO: Roboflow's, Label Studio's, CVAT's (polygons, boxes, run lengths)
images/*.jpg  labels/*.txt  data.yaml       YOLO: Roboflow's, Label Studio's, Ultralytics' (boxes, polygons)
project-1-at-….json                         Label Studio's JSON, long and short (boxes, polygons, brush, choices)
*.jpg  *_mask.png  _classes.csv             Roboflow's semantic masks; or its table of classes
../split_csv/1cls.csv  image_anno.csv       VisA's tables: the split, and kinds of defects
A picture that a tool has seen and marked nothing on is good. Labels of other kinds are refused: pictures of defects
would be taken for good ones.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from protocol.errors import InputError
from protocol.pictures.files import read_file, shown
from protocol.pictures.reader import read_stored
from protocol.pictures.roles import Use, find_role, is_good
from protocol.pictures.runs import Runs, read_runs
from protocol.pictures.truth import NOWHERE, Outline, Strokes, Truth
from protocol.pictures.walk import Found

MOST_LABEL_BYTES = 256 << 20
UNNAMED = "defect"
VISA_TABLE, VISA_KINDS = Path("split_csv") / "1cls.csv", "image_anno.csv"
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of a file that it is given


@dataclass(frozen=True)
class Label:
    kind: str = ""  # "" for good
    truth: Truth = NOWHERE
    use: Use = ""


@dataclass(frozen=True)
class Mark:
    """One thing that a person marked on a picture."""

    kind: str
    outlines: tuple[Outline, ...] = ()
    strokes: tuple[Strokes | Runs, ...] = ()
    is_box: bool = False
    area: float = 1.0  # in any unit: the largest kind names the picture


def read_labels(found: Found) -> dict[Path, Label]:
    """By picture; empty where there are no files of labels. Raises: InputError for labels that are not read."""
    names = _Names(found)
    visa = _read_visa(found.root, names)
    if visa:
        return visa
    labels: dict[Path, Label] = {}
    for path in found.labels:
        labels |= _read_json(path, names) if path.suffix.lower() == ".json" else {}
    return labels or _read_yolo(found) or _read_tables(found) or _refuse_others(found)


def join(marks: list[Mark]) -> Label:
    """Of one picture. Marks that say "good" are none."""
    marks = [mark for mark in marks if not is_good(mark.kind)]
    if not marks:
        return Label()
    areas: dict[str, float] = defaultdict(float)
    for mark in marks:
        areas[mark.kind] += mark.area
    outlines = tuple(outline for mark in marks for outline in mark.outlines)
    strokes = tuple(stroke for mark in marks for stroke in mark.strokes)
    rough = any(mark.is_box for mark in marks)
    return Label(max(sorted(areas), key=areas.__getitem__), Truth((), outlines, strokes, rough))


class _Names:
    """Pictures of the set by the paths that label files call them."""

    def __init__(self, found: Found) -> None:
        self.paths = {path for paths in found.pictures.values() for path in paths}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.paths):
            self._by_name[path.name].append(path)

    def find(self, base: Path, name: str) -> Path | None:
        """As the file that names it stands to it, else the only one of that name."""
        name = name.replace("\\", "/")
        if "\0" not in name and base / name in self.paths:
            return base / name
        last = name.rsplit("/", 1)[-1]
        for one in (last, _UPLOADED.sub("", last)):
            if len(self._by_name.get(one, [])) == 1:
                return self._by_name[one][0]
        return None


def _read_json(path: Path, names: _Names) -> dict[Path, Label]:
    try:
        content = json.loads(read_file(path, MOST_LABEL_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}  # whatever it is, no tool's labels
    try:
        if isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content:
            return _read_coco(content, path.parent, names)
        if isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
            return _read_label_studio(content, path.parent, names)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"{shown(path)} has labels that do not fit ({error!r:.80}): export them again") from None
    return {}


def _read_coco(content: dict[str, Any], base: Path, names: _Names) -> dict[Path, Label]:
    kinds = {one["id"]: shown(str(one["name"])) for one in content.get("categories", [])}
    sizes = {one["id"]: (float(one["width"]), float(one["height"])) for one in content["images"]}
    marks: dict[Any, list[Mark]] = defaultdict(list)
    for one in content["annotations"]:
        width, height = sizes[one["image_id"]]
        kind, pieces, box = kinds.get(one.get("category_id"), UNNAMED), one.get("segmentation"), one.get("bbox")
        polygons = [piece for piece in pieces if len(piece) >= 6] if isinstance(pieces, list) else []
        outlines = [tuple((x / width, y / height) for x, y in _pairs(piece)) for piece in polygons]
        runs = (read_runs(pieces),) if isinstance(pieces, dict) else ()
        if not outlines and not runs and box:
            outlines = [_box(box[0] / width, box[1] / height, box[2] / width, box[3] / height)]
        marks[one["image_id"]].append(
            Mark(kind, tuple(outlines), runs, not (polygons or runs), float(one.get("area") or 1))
        )
    placed = ((names.find(base, str(one["file_name"])), join(marks[one["id"]])) for one in content["images"])
    return {path: label for path, label in placed if path is not None}


def _read_label_studio(tasks: list[dict[str, Any]], base: Path, names: _Names) -> dict[Path, Label]:
    labels = {}
    for task in tasks:
        name = _picture_name(task.get("data", task))
        path = names.find(base, name) if name else None
        results = _results(task)
        if path is not None and results is not None:
            labels[path] = join([mark for result in results for mark in _marks(result)])
    return labels


def _picture_name(data: Any) -> str:
    """Of a task: the value that ends like a picture's name."""
    values = data.values() if isinstance(data, dict) else ()
    texts = (value.partition("?")[0] if "?d=" not in value else value for value in values if isinstance(value, str))
    return next((text for text in texts if re.search(r"\.(png|jpe?g|bmp|tiff?|webp)$", text, re.IGNORECASE)), "")


def _results(task: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Of the last annotation that was not cancelled; None for a task that nobody has done."""
    if "annotations" in task:
        done = [one for one in task["annotations"] if not one.get("was_cancelled")]
        return list(done[-1]["result"]) if done else None
    if "label" in task or "choice" in task or "tag" in task:  # the short form
        choices = task.get("choice") or []
        named = [{"value": {"choices": [choices] if isinstance(choices, str) else choices}}] if choices else []
        return [
            {"value": one} for key in ("label", "tag") for one in task.get(key) or [] if isinstance(one, dict)
        ] + named
    return None


def _marks(result: dict[str, Any]) -> Iterator[Mark]:
    value = {**result, **result.get("value", {})}
    lists = (value[key] for key in value if key.endswith("labels") and isinstance(value[key], list))
    named: list[Any] = next(lists, [])
    kind = shown(str(named[0])) if named else UNNAMED
    if "rle" in value:
        size_px = (int(value["original_height"]), int(value["original_width"]))
        yield Mark(kind, (), (Strokes(size_px, bytes(value["rle"])),))
    elif "points" in value:
        yield Mark(kind, (tuple((x / 100, y / 100) for x, y in value["points"]),))
    elif "width" in value and "x" in value:
        x, y, width, height = (float(value[key]) / 100 for key in ("x", "y", "width", "height"))
        yield Mark(kind, (_box(x, y, width, height),), (), True, width * height)
    elif value.get("choices"):
        yield Mark(shown(str(value["choices"][0])))


def _read_yolo(found: Found) -> dict[Path, Label]:
    files = {path for path in found.labels if path.suffix.lower() == ".txt" and path.parent.name != found.root.name}
    folders = {path.parent for path in files if "labels" in path.parts[len(found.root.parts) :]}
    if not folders:
        return {}
    kinds = _yolo_kinds(found)
    labels: dict[Path, Label] = {}
    for paths in found.pictures.values():
        for path in paths:
            file = _yolo_file(path, found.root)
            if file.parent in folders:
                labels[path] = join(_read_yolo_file(file, kinds)) if file in files else Label()
    return labels


def _yolo_file(path: Path, root: Path) -> Path:
    """The folder `images` becomes `labels`; the rest is the same."""
    parts = list(path.relative_to(root).with_suffix(".txt").parts)
    places = [number for number, part in enumerate(parts[:-1]) if part.lower() == "images"]
    if places:
        parts[places[-1]] = "labels"
    return root.joinpath(*parts)


def _read_yolo_file(path: Path, kinds: dict[int, str]) -> list[Mark]:
    marks = []
    for line in read_file(path).decode("utf-8-sig", "replace").splitlines():
        try:
            number, *shares = (float(word) for word in line.split())
        except ValueError:
            if not line.strip():
                continue
            raise InputError(f"{shown(path)} is no YOLO label: {line!r:.60}") from None
        kind = kinds.get(int(number), f"class {int(number)}")
        if len(shares) in (4, 5):  # the fifth is a detector's confidence
            x, y, width, height = shares[:4]
            marks.append(Mark(kind, (_box(x - width / 2, y - height / 2, width, height),), (), True, width * height))
        elif len(shares) >= 6 and len(shares) % 2 == 0:
            marks.append(Mark(kind, (tuple(_pairs(shares)),)))
        else:
            raise InputError(f"{shown(path)} is no YOLO label: {line!r:.60}")
    return marks


def _yolo_kinds(found: Found) -> dict[int, str]:
    """From classes.txt or data.yaml, of which only the list of names is read."""
    for path in found.labels:
        text = read_file(path).decode("utf-8-sig", "replace") if path.name in _KIND_FILES else ""
        if path.suffix in (".txt", ".names") and text:
            return {number: shown(line.strip()) for number, line in enumerate(text.splitlines()) if line.strip()}
        block = re.search(r"^names:(.*?)(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
        if block:
            return _yaml_names(block[1])
    return {}


_KIND_FILES = ("classes.txt", "obj.names", "data.yaml", "data.yml", "dataset.yaml")


def _yaml_names(block: str) -> dict[int, str]:
    """`['a', b]`, or a line each: `- a` or `0: a`."""
    listed = re.search(r"\[(.*)\]", block, re.DOTALL)
    if listed:
        words = [word.strip().strip("'\"") for word in listed[1].split(",")]
        return {number: shown(word) for number, word in enumerate(words) if word}
    lines = re.findall(r"^\s*(?:-|(\d+):)\s*(.+?)\s*$", block, re.MULTILINE)
    return {int(key) if key else number: shown(word.strip("'\"")) for number, (key, word) in enumerate(lines)}


def _read_tables(found: Found) -> dict[Path, Label]:
    """Roboflow's `_classes.csv`: of masks, or of whole pictures."""
    labels: dict[Path, Label] = {}
    for path in found.labels:
        if path.name == "_classes.csv":
            rows = _rows(path)
            head = [word.lower() for word in rows[0]] if rows else []
            labels |= (
                _read_semantic(path.parent, rows[1:]) if head[:1] == ["pixel value"] else _read_classes(path, rows)
            )
    return labels


def _read_semantic(folder: Path, rows: list[list[str]]) -> dict[Path, Label]:
    kinds = {int(row[0]): shown(row[1]) for row in rows if len(row) >= 2 and row[0].isdecimal()}
    labels: dict[Path, Label] = {}
    for mask in sorted(folder.glob("*_mask.png")):
        stem = mask.name.removesuffix("_mask.png")
        pictures = [path for path in folder.glob("*") if path.stem == stem]
        stored = read_stored(mask)
        counts = np.bincount((stored if stored.ndim == 2 else stored[..., 0]).reshape(-1), minlength=2)
        counts[0] = 0
        label = Label(kinds.get(int(counts.argmax()), UNNAMED), Truth(files=(mask,))) if counts.any() else Label()
        labels |= {path: label for path in pictures}
    return labels


def _read_classes(path: Path, rows: list[list[str]]) -> dict[Path, Label]:
    labels = {}
    for row in rows[1:]:
        named = [shown(kind) for kind, value in zip(rows[0][1:], row[1:], strict=False) if value.strip() == "1"]
        labels[path.parent / row[0]] = join([Mark(kind) for kind in named])
    return labels


def _read_visa(root: Path, names: _Names) -> dict[Path, Label]:
    """The published split; without its table the folders tell good from bad."""
    table = root.parent / VISA_TABLE
    if not table.is_file() or not (root / "Data" / "Images").is_dir():
        return {}
    kinds = _read_visa_kinds(root / VISA_KINDS)
    labels = {}
    for row in _rows(table)[1:]:
        if len(row) >= 5 and row[0] == root.name:
            picture, mask = root.parent / row[3], root.parent / row[4] if row[4] else None
            use = find_role((row[1],)).use
            kind = "" if is_good(row[2]) else kinds.get(row[3], shown(row[2]))
            if picture in names.paths:
                labels[picture] = Label(kind, Truth(files=(mask,)) if mask and kind else NOWHERE, use)
    return labels


def _read_visa_kinds(table: Path) -> dict[str, str]:
    """By picture; the table has several of one picture after commas, of which the first names it."""
    rows = _rows(table)[1:] if table.is_file() else []
    named = {row[0]: row[1].split(",")[0].strip() for row in rows if len(row) >= 2}
    return {picture: shown(kind) for picture, kind in named.items() if kind and not is_good(kind)}


def _rows(path: Path) -> list[list[str]]:
    text = read_file(path, MOST_LABEL_BYTES).decode("utf-8-sig", "replace")
    return [[word.strip() for word in row] for row in csv.reader(io.StringIO(text)) if row]


def _refuse_others(found: Found) -> dict[Path, Label]:
    """Raises: InputError where a tool's labels lie beside pictures and would be left out."""
    stems = {path.with_suffix("") for paths in found.pictures.values() for path in paths}
    for path in found.labels:
        is_voc = path.suffix.lower() == ".xml" and path.with_suffix("") in stems
        if is_voc or path.name.startswith("_annotations"):
            raise InputError(f"{shown(path)} has labels of a kind that is not read: export them as COCO or YOLO")
    return {}


def _pairs(values: list[float]) -> list[tuple[float, float]]:
    return list(zip(values[0::2], values[1::2], strict=True))


def _box(x: float, y: float, width: float, height: float) -> Outline:
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
