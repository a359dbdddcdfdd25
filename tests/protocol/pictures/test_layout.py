"""Sets of pictures in the layouts that people have: what is taken for what."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from protocol.errors import InputError
from protocol.pictures.layout import Picture, PictureSet, list_set
from protocol.pictures.runs import decode_runs, read_runs
from protocol.pictures.truth import Strokes, Truth, decode_strokes, draw_truth

SIZE = (8, 12)
PIXELS = cv2.imencode(".png", np.full((*SIZE, 3), 90, np.uint8))[1].tobytes()


def fill(root: Path, **folders: int) -> None:
    """`a__b=2` makes a/b/000.png and a/b/001.png."""
    for name, count in folders.items():
        folder = root.joinpath(*name.split("__"))
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / f"{number:03d}.png").write_bytes(PIXELS)


def mark(path: Path, value: Any = 255) -> None:
    """A mask whose left half is defective."""
    mask = np.zeros((*SIZE, *np.shape(value)), np.uint8)
    mask[:, :6] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)


def count(found: PictureSet) -> dict[tuple[str, str, bool], int]:
    """By use, kind, and whether there is a mask."""
    return dict(Counter((one.use, one.kind, bool(one.truth)) for one in found.pictures))


def truth_of(found: PictureSet, name: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    (picture,) = (one for one in found.pictures if one.kind and one.path.as_posix().endswith(name))
    return draw_truth(picture.truth, SIZE)


def is_left_half(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> bool:
    return bool(mask[:, :6].all() and not mask[:, 6:].any())


def test_mvtec(tmp_path: Path) -> None:
    fill(tmp_path, train__good=3, test__good=2, test__crack=2)
    mark(tmp_path / "ground_truth" / "crack" / "000_mask.png")
    found = list_set(tmp_path)
    assert count(found) == {
        ("train", "", False): 3, ("test", "", False): 2, ("test", "crack", True): 1, ("test", "crack", False): 1,
    }  # fmt: skip
    assert is_left_half(truth_of(found, "crack/000.png"))
    assert found.report() == [
        "folders: 5 good, 2 defective (2 crack)",
        "1 of 2 defective pictures have masks",
    ]


@pytest.mark.parametrize("value", [1, 3, 255, (0, 0, 200), (0, 0, 0, 255)])
@pytest.mark.parametrize("name", ["000.png", "000_mask.png", "000-mask.bmp", "000_GT.png"])
def test_masks_of_any_name_and_value(value: Any, name: str, tmp_path: Path) -> None:
    if np.shape(value) == (4,) and name.endswith(".bmp"):
        pytest.skip("a BMP has no transparency")
    fill(tmp_path, good=3, crack=1)
    mark(tmp_path / "mask" / name, value)
    found = list_set(tmp_path)
    assert count(found) == {("", "", False): 3, ("", "crack", True): 1}
    assert is_left_half(truth_of(found, "crack/000.png"))


def test_soft_masks_are_cut_in_the_middle(tmp_path: Path) -> None:
    fill(tmp_path, good=1, crack=1)
    (tmp_path / "mask").mkdir()
    cv2.imwrite(str(tmp_path / "mask" / "000.png"), np.linspace(255, 0, 96).astype(np.uint8).reshape(SIZE))
    assert truth_of(list_set(tmp_path), "crack/000.png").sum() == 48


def test_btad_and_loco(tmp_path: Path) -> None:
    fill(tmp_path, train__ok=3, test__ok=1, test__ko=1, test__logical_anomalies=1)
    mark(tmp_path / "ground_truth" / "ko" / "000.png")
    for part, side in ((0, slice(0, 3)), (1, slice(3, 6))):  # a mask for each defect
        mask = np.zeros(SIZE, np.uint8)
        mask[:, side] = 254 - part
        folder = tmp_path / "ground_truth" / "logical_anomalies" / "000"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{part:03d}.png"), mask)
    found = list_set(tmp_path)
    assert {one.kind for one in found.pictures} == {"", "ko", "logical_anomalies"}
    assert is_left_half(truth_of(found, "ko/000.png"))
    assert is_left_half(truth_of(found, "logical_anomalies/000.png"))


def test_mvtec_ad_2(tmp_path: Path) -> None:
    fill(tmp_path, train__good=3, validation__good=2, test_public__good=1, test_public__bad=1, test_private=4)
    mark(tmp_path / "test_public" / "ground_truth" / "bad" / "000_mask.png")
    found = list_set(tmp_path)
    assert count(found) == {
        ("train", "", False): 3, ("validation", "", False): 2, ("test", "", False): 1, ("test", "bad", True): 1,
    }  # fmt: skip
    assert found.unused == ("4 files: no folder says whether test_private are good",)


def test_anomalib_folder(tmp_path: Path) -> None:
    fill(tmp_path, good=3, crack=2, colour=1, normal_test=2)
    mark(tmp_path / "mask" / "crack" / "000.png")
    mark(tmp_path / "mask" / "crack" / "009.png")
    found = list_set(tmp_path)
    assert count(found) == {
        ("", "", False): 3, ("", "crack", True): 1, ("", "crack", False): 1, ("", "colour", False): 1,
        ("test", "", False): 2,
    }  # fmt: skip
    assert found.unused == ("1 file: masks that belong to no defective picture",)


@pytest.mark.parametrize("has_table", [False, True])
def test_visa_as_published(has_table: bool, tmp_path: Path) -> None:
    candle = tmp_path / "candle"
    fill(candle, Data__Images__Normal=3, Data__Images__Anomaly=1)
    mark(candle / "Data" / "Masks" / "Anomaly" / "000.png", 1)
    if has_table:
        rows = ["object,split,label,image,mask", "other,train,normal,other/x.png,"]
        rows += [f"candle,train,normal,candle/Data/Images/Normal/00{number}.png," for number in range(2)]
        rows += ["candle,test,normal,candle/Data/Images/Normal/002.png,"]
        rows += ["candle,test,anomaly,candle/Data/Images/Anomaly/000.png,candle/Data/Masks/Anomaly/000.png"]
        (tmp_path / "split_csv").mkdir()
        (tmp_path / "split_csv" / "1cls.csv").write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    found = list_set(candle)
    expected = {("train", "", False): 2, ("test", "", False): 1, ("test", "anomaly", True): 1}
    assert count(found) == (expected if has_table else {("", "", False): 3, ("", "Anomaly", True): 1})
    assert is_left_half(truth_of(found, "Anomaly/000.png"))


def test_visas_kinds_of_defects(tmp_path: Path) -> None:
    """Of several on one picture the first names it; one that is left out stays an anomaly."""
    pcb = tmp_path / "pcb1"
    fill(pcb, Data__Images__Normal=2, Data__Images__Anomaly=3)
    rows = [f"pcb1,train,normal,pcb1/Data/Images/Normal/00{number}.png," for number in range(2)]
    rows += [f"pcb1,test,anomaly,pcb1/Data/Images/Anomaly/00{number}.png," for number in range(3)]
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text("\n".join(["object,split,label,image,mask", *rows]))
    kinds = ["pcb1/Data/Images/Normal/000.png,normal,", "pcb1/Data/Images/Anomaly/000.png,bent,"]
    kinds += ['pcb1/Data/Images/Anomaly/001.png,"scratch, melt",']
    (pcb / "image_anno.csv").write_text("\n".join(["image,label,mask", *kinds]))
    named = [picture.kind for picture in list_set(pcb).pictures if picture.use == "test"]
    assert sorted(named) == ["anomaly", "bent", "scratch"]


@pytest.mark.parametrize("inner", ["train/good", "Data/Images/Normal", "train/ok"])
def test_a_folder_of_several_products(inner: str, tmp_path: Path) -> None:
    for product in ("bottle", "cable"):
        fill(tmp_path / product, **{inner.replace("/", "__"): 2})
    with pytest.raises(InputError, match=r"holds several products \(bottle, cable, …\): give --data the folder of one"):
        list_set(tmp_path)


def test_a_folder_in_a_folder_as_archives_leave_it(tmp_path: Path) -> None:
    fill(tmp_path / "bottle", train__good=2, test__crack=1)
    assert count(list_set(tmp_path)) == {("train", "", False): 2, ("test", "crack", False): 1}


def test_roboflow_folders(tmp_path: Path) -> None:
    fill(tmp_path, train__good=3, train__scratch=2, valid__good=2, valid__scratch=1, test__good=1, test__scratch=1)
    assert {key[0] for key in count(list_set(tmp_path))} == {"train", "validation", "test"}


def coco(folder: Path, marks: list[dict[str, object]]) -> None:
    names = sorted(path.name for path in folder.glob("*.png"))
    images = [{"id": number, "file_name": name, "width": 12, "height": 8} for number, name in enumerate(names)]
    kinds = [{"id": 0, "name": "defects"}, {"id": 1, "name": "crack"}, {"id": 2, "name": "Good"}]
    content = {"images": images, "annotations": marks, "categories": kinds}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


def test_coco(tmp_path: Path) -> None:
    fill(tmp_path, train=3, test=4)
    coco(tmp_path / "train", [])
    outline = [[0, 0, 6, 0, 6, 8, 0, 8]]
    coco(tmp_path / "test", [
        {"image_id": 0, "category_id": 1, "segmentation": outline, "bbox": [0, 0, 6, 8], "area": 48},
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 6, 8]},
        {"image_id": 2, "category_id": 2, "bbox": [0, 0, 12, 8]},
    ])  # fmt: skip
    found = list_set(tmp_path)
    assert count(found) == {("train", "", False): 3, ("test", "crack", True): 2, ("test", "", False): 2}
    assert is_left_half(truth_of(found, "test/000.png"))
    assert is_left_half(truth_of(found, "test/001.png"))
    assert found.report()[1] == "2 of 2 defective pictures have masks, 1 of them boxes, which hold more than the defect"


def pack_runs(counts: list[int]) -> str:
    """As COCO's maskApi.c does (rleToString)."""
    text = ""
    for number, count in enumerate(counts):
        rest = count - (counts[number - 2] if number > 2 else 0)
        while True:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


HALF_RUNS = [0, 6 * 8, 6 * 8]  # down the columns: the left half


@pytest.mark.parametrize("counts", [HALF_RUNS, pack_runs(HALF_RUNS)])
def test_coco_run_lengths(counts: object, tmp_path: Path) -> None:
    fill(tmp_path, train=3, test=2)
    coco(tmp_path / "train", [])
    runs = {"size": [8, 12], "counts": counts}
    coco(tmp_path / "test", [{"image_id": 0, "category_id": 1, "segmentation": runs, "bbox": [0, 0, 12, 8]}])
    found = list_set(tmp_path)
    assert is_left_half(truth_of(found, "test/000.png"))
    assert found.report()[1] == "1 of 1 defective pictures have masks"


def test_packed_run_lengths_of_any_mask() -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random((9, 40)) < 0.05 * seed
        flat = np.concatenate([[False], mask.T.reshape(-1)])
        counts = np.diff(np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]), [mask.size]])).tolist()
        runs = read_runs({"size": [9, 40], "counts": pack_runs(counts)})
        assert np.array_equal(decode_runs(runs, (9, 40)), mask)


@pytest.mark.parametrize("counts", [[0, 48, 47], [0, 100, -4], "0@", "", [10**30]])
def test_run_lengths_that_do_not_fit(counts: object, tmp_path: Path) -> None:
    fill(tmp_path, test=1)
    coco(tmp_path / "test", [{"image_id": 0, "category_id": 1, "segmentation": {"size": [8, 12], "counts": counts}}])
    with pytest.raises(InputError, match=r"_annotations\.coco\.json has labels that do not fit .*do not add up"):
        list_set(tmp_path)


def test_run_lengths_of_another_picture() -> None:
    with pytest.raises(InputError, match="of a picture of 120x80 pixels, theirs has 12x8"):
        decode_runs(read_runs({"size": [80, 120], "counts": [0, 4800, 4800]}), (8, 12))


@pytest.mark.parametrize(
    "names", ["names: ['crack', \"dent\"]\n", "names:\n  - crack\n  - dent\n", "names:\n  0: crack\n  1: dent\nnc: 2\n"]
)
def test_yolo(names: str, tmp_path: Path) -> None:
    fill(tmp_path, train__images=3, valid__images=2)
    for folder in ("train", "valid"):
        (tmp_path / folder / "labels").mkdir()
    (tmp_path / "valid" / "labels" / "000.txt").write_text("0 0.25 0.5 0.5 1\n\n")
    (tmp_path / "valid" / "labels" / "001.txt").write_text("1 0 0 0.5 0 0.5 1 0 1\n")
    (tmp_path / "train" / "labels" / "000.txt").write_text("")
    (tmp_path / "data.yaml").write_text("train: ../train/images\n" + names)
    found = list_set(tmp_path)
    assert count(found) == {("train", "", False): 3, ("validation", "crack", True): 1, ("validation", "dent", True): 1}
    assert all(is_left_half(truth_of(found, f"valid/images/00{number}.png")) for number in (0, 1))
    (tmp_path / "valid" / "labels" / "001.txt").write_text("1 0 0\n")
    with pytest.raises(InputError, match=r"001\.txt is no YOLO label: '1 0 0'"):
        list_set(tmp_path)


def pack(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> list[int]:
    """Label Studio's run lengths, written from its description: four sizes of counts, runs of one byte each."""
    flat = np.repeat(mask.reshape(-1), 4)
    bits = f"{flat.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    ends = [*(np.flatnonzero(np.diff(flat.astype(int))) + 1).tolist(), flat.size]
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        bits += f"1{3:02b}{end - start - 1:016b}{int(flat[start]):08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def test_label_studio(tmp_path: Path) -> None:
    fill(tmp_path, images=7)
    half = np.zeros(SIZE, np.uint8)
    half[:, :6] = 255
    size = {"original_width": 12, "original_height": 8}
    box = {"x": 0, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["crack"]}
    corners = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["crack"]}
    results: list[list[dict[str, object]] | None] = [
        [{"value": box, **size}],
        [{"value": corners, **size}],
        [{"value": {"format": "rle", "rle": pack(half), "brushlabels": ["crack"]}, **size}],
        [{"value": {"choices": ["dent"]}, "type": "choices"}],
        [{"value": {"choices": ["OK"]}, "type": "choices"}],
        [],
        None,  # nobody has looked at it
    ]
    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/upload/1/0123abcd-{number:03d}.png"},
            "annotations": [{"was_cancelled": True, "result": "no"}] * (result is None) or [{"result": result}],
        }
        for number, result in enumerate(results)
    ]
    (tmp_path / "project-1.json").write_text(json.dumps(tasks))
    found = list_set(tmp_path)
    assert count(found) == {("", "crack", True): 3, ("", "dent", False): 1, ("", "", False): 2}
    assert all(is_left_half(truth_of(found, f"00{number}.png")) for number in range(3))
    assert found.unused == ("1 file: without a label",)


def test_label_studio_in_short(tmp_path: Path) -> None:
    fill(tmp_path, images=2)
    box = {"x": 0, "y": 0, "width": 50, "height": 100, "rectanglelabels": ["crack"]}
    tasks = [{"image": "/data/upload/1/000.png", "label": [box]}, {"image": "/data/upload/1/001.png", "choice": "good"}]
    (tmp_path / "short.json").write_text(json.dumps(tasks))
    found = list_set(tmp_path)
    assert count(found) == {("", "crack", True): 1, ("", "", False): 1}
    assert is_left_half(truth_of(found, "000.png"))


def test_brush_masks_without_their_tasks_are_no_pictures(tmp_path: Path) -> None:
    fill(tmp_path, good=2)
    mark(tmp_path / "good" / "task-1-annotation-2-by-1-tag-crack-0.png")
    found = list_set(tmp_path)
    assert len(found.pictures) == 2
    assert found.unused == ("1 file: Label Studio's brush masks: export its JSON too",)


@pytest.mark.parametrize("cut", [0, 3, 9, -1])
def test_brush_strokes_that_are_cut(cut: int) -> None:
    with pytest.raises(InputError, match="brush strokes"):
        decode_strokes(Strokes(SIZE, bytes(pack(np.ones(SIZE, np.uint8))[:cut])))


def test_roboflow_semantic_masks(tmp_path: Path) -> None:
    fill(tmp_path, test=3)
    mark(tmp_path / "test" / "000_mask.png", 2)
    mark(tmp_path / "test" / "001_mask.png", 0)
    (tmp_path / "test" / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, dent\n2, crack\n")
    found = list_set(tmp_path)
    assert count(found) == {("test", "crack", True): 1, ("test", "", False): 1}
    assert is_left_half(truth_of(found, "000.png"))


def test_labels_that_are_not_read_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, train=2)
    (tmp_path / "train" / "000.xml").write_text("<annotation/>")
    with pytest.raises(InputError, match=r"000\.xml has labels of a kind that is not read: export"):
        list_set(tmp_path)


def test_odd_files(tmp_path: Path) -> None:
    fill(tmp_path, good=2)
    good = tmp_path / "good"
    (good / "._000.png").write_bytes(b"\0\5\x16\7")
    (good / "notes.txt").write_text("no labels")
    (good / "sheet.xlsx").write_bytes(b"PK")
    (good / "picture").write_bytes(PIXELS)  # no ending, but a picture
    os.mkfifo(good / "pipe.png")
    (good / "loop.png").symlink_to(good / "loop.png")
    (good / "again").symlink_to(tmp_path)
    found = list_set(tmp_path)
    assert len(found.pictures) == 3
    assert found.unused == (
        "1 file: a folder that leads back, or too deep",
        "1 file: hidden, or a system's",
        "1 file: no picture that is read (.xlsx)",
        "2 files: no plain file, or a broken link",
    )


def test_names_that_differ_in_case_or_are_not_utf8(tmp_path: Path) -> None:
    fill(tmp_path, good=1)
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/kr\xe4tzer"))
    for name in ("a.png", "A.png"):
        strange.mkdir(exist_ok=True)
        (strange / name).write_bytes(PIXELS)
    mark(tmp_path / "mask" / "A_mask.png")
    found = list_set(tmp_path)
    bad: list[Picture] = [one for one in found.pictures if one.kind]
    assert [one.kind for one in bad] == [r"kr\xe4tzer"] * 2
    assert bad[0].path.name == "A.png"
    assert bad[0].truth == Truth(files=(tmp_path / "mask" / "A_mask.png",))
    assert found.doubts == ("1 names stand for several pictures that differ in case or ending alone",)
    "\n".join(found.report()).encode()


def test_no_good_ones(tmp_path: Path) -> None:
    fill(tmp_path, bottles=2)
    with pytest.raises(InputError, match="has no folder of good pictures: name it good, ok, fresh or normal"):
        list_set(tmp_path)


def test_masks_of_another_picture(tmp_path: Path) -> None:
    mark(tmp_path / "x.png")
    assert draw_truth(Truth(files=(tmp_path / "x.png",)), (16, 24))[:, :12].all()  # at another scale
    with pytest.raises(InputError, match=r"x\.png is 12x8 pixels, its picture 16x16: use the mask of this picture"):
        draw_truth(Truth(files=(tmp_path / "x.png",)), (16, 16))
