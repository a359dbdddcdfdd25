"""A model package is taken only whole, unaltered and of this format version."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ManifestError
from protocol.known_bad import CHALLENGE_BIN, encode_known_bad
from protocol.manifest import (
    GOLDEN_NPZ,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    MODEL_ONNX,
    AnomalyMap,
    Calibration,
    Challenge,
    Distribution,
    Manifest,
    Package,
    Preprocess,
    Threshold,
    decode_manifest,
    encode_manifest,
    file_sha256,
    load_package,
)
from protocol.strict import FieldError

SAMPLE = Manifest(
    format=1,
    id="orange-256",
    product="orange",
    preprocess=Preprocess((256, 320), (0, 32, 256, 256), (128, 128)),
    map=AnomalyMap((8, 8), 2.0**-7, 4),
    threshold=Threshold(0.25, "chosen"),
    files={"model.onnx": "0" * 64},
    cost={"macs": 1e6},
    figures={"auroc": 0.99},
    provenance={"seed": "1"},
    calibration=Calibration(40, {"score": Distribution(0.1, 0.02, (0.07, 0.1, 0.13))}),
    challenge=Challenge(3, 2, {"dent": 2, "cut": 1}, 3, 1.0),
)


@pytest.fixture
def package(trivial_package: Package, tmp_path: Path) -> Package:
    """A copy of the trivial package that a test may damage."""
    shutil.copytree(trivial_package.folder, tmp_path / "trivial")
    return load_package(tmp_path / "trivial")


def edit_manifest(package: Package, edit: Callable[[dict[str, Any]], object]) -> None:
    path = package.folder / MANIFEST
    content = json.loads(path.read_bytes())
    edit(content)
    path.write_text(json.dumps(content))


def replace_file(package: Package, name: str, content: bytes) -> None:
    """With its new SHA-256 in the manifest: a package made wrongly, not one that was altered."""
    (package.folder / name).write_bytes(content)
    edit_manifest(package, lambda manifest: manifest["files"].update({name: file_sha256(package.folder / name)}))


def test_bytes_and_back() -> None:
    assert decode_manifest(encode_manifest(SAMPLE)) == SAMPLE


def test_a_package_is_read_with_all_its_files(package: Package) -> None:
    golden = package.load_golden()
    assert package.path(MODEL_ONNX).is_file()
    assert golden.frames.shape == (1, 256, 256, 3)
    assert golden.images.shape == (1, 128, 128, 3)
    assert golden.maps.shape == (1, *package.manifest.map.shape)


def test_a_manifest_made_before_there_was_a_calibration_is_read() -> None:
    content = asdict(SAMPLE)
    del content["calibration"]
    assert decode_manifest(json.dumps(content).encode()) == replace(SAMPLE, calibration=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": float("nan")}, r"calibration\.statistics\.score\.mean: must be a finite number"),
        ({"mean": float("inf")}, r"score\.mean: must be a finite number"),
        ({"quantiles": [0.0, float("nan"), 1.0]}, r"score\.quantiles\.1: must be a finite number"),
        ({"deviation": -0.1}, r"score\.deviation: must be 0 or more"),
        ({"deviation": 1e300}, r"score: is out of range"),
        ({"mean": -1e300}, r"score: is out of range"),
        ({"quantiles": [0.2, 0.1, 0.3]}, r"score\.quantiles: must not fall"),
        ({"quantiles": [0.1, 0.2]}, r"score\.quantiles: must have 3 values"),
    ],
)
def test_a_calibration_that_nothing_can_be_compared_with_is_refused(changes: dict[str, Any], message: str) -> None:
    score = {"mean": 0.1, "deviation": 0.02, "quantiles": [0.07, 0.1, 0.13], **changes}
    content = {**asdict(SAMPLE), "calibration": {"pictures": 40, "statistics": {"score": score}}}
    with pytest.raises(ManifestError, match=message):
        decode_manifest(json.dumps(content).encode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0, "kinds": {}}, r"challenge\.frames: must be 1\.\.64"),
        ({"frames": 65, "kinds": {"cut": 65}}, r"challenge\.frames: must be 1\.\.64"),
        ({"goods": 0}, r"challenge\.goods: must be 1\.\.frames"),
        ({"goods": 4}, r"challenge\.goods: must be 1\.\.frames"),
        ({"kinds": {"dent": 2}}, r"challenge\.kinds: must add up to frames"),
        ({"kinds": {"dent": 4, "cut": -1}}, r"challenge\.kinds: must add up to frames"),
        ({"found": 4}, r"challenge\.found: must be 0\.\.frames"),
        ({"found": 2, "least_share": 0.9}, r"challenge\.least_share: must be 0\.\.found / frames"),
        ({"least_share": float("nan")}, r"challenge\.least_share: must be a finite number"),
    ],
)
def test_a_challenge_that_nobody_can_pass_or_fail_is_refused(changes: dict[str, Any], message: str) -> None:
    content = asdict(SAMPLE)
    content["challenge"].update(changes)
    if "kinds" in changes:
        content["challenge"]["kinds"] = changes["kinds"]
    with pytest.raises(ManifestError, match=message):
        decode_manifest(json.dumps(content).encode())


@pytest.mark.parametrize(("share", "fewest"), [(1.0, 3), (2 / 3, 2), (0.5, 2), (0.1, 1), (0.0, 1)])
def test_no_share_lets_a_model_pass_that_finds_no_known_bad_part(share: float, fewest: int) -> None:
    assert Challenge(3, 2, {"dent": 3}, 3, share).fewest() == fewest


def test_a_package_brings_its_known_bad_parts_or_says_that_it_has_none(package: Package) -> None:
    frames = list(package.load_known_bad())
    assert [frame.shape for frame in frames] == [(256, 256, 3)] * 2
    edit_manifest(package, lambda manifest: manifest.pop("challenge"))
    assert list(load_package(package.folder).load_known_bad()) == []


def test_known_bad_parts_that_do_not_fit_the_manifest_are_refused(package: Package) -> None:
    replace_file(package, CHALLENGE_BIN, encode_known_bad([np.zeros((2, 2, 3), np.uint8)], []))
    with pytest.raises(ManifestError, match=r"holds fewer pictures than the manifest says"):
        list(load_package(package.folder).load_known_bad())


def test_a_calibration_needs_pictures() -> None:
    content = {**asdict(SAMPLE), "calibration": {"pictures": 1, "statistics": {}}}
    with pytest.raises(ManifestError, match=r"calibration\.pictures: must be 2 or more"):
        decode_manifest(json.dumps(content).encode())


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        (127 / 128, True),  # a map that is white throughout
        (math.nextafter(127 / 128, 1), False),
        (1000.0, False),
        (1e300, False),
        (float("nan"), False),
        (float("inf"), False),
        (-1.0, False),  # every map reaches it
        (math.nextafter(-1, 0), True),
        (-1e300, False),
        (float("-inf"), False),
    ],
)
def test_a_threshold_that_no_score_or_every_score_reaches_is_refused(value: float, is_taken: bool) -> None:
    """int8 maps of scale 1/128 score from -1 to 127/128; a score at the threshold is rejected."""
    assert (SAMPLE.map.threshold_fault(value) == "") is is_taken
    content = {**asdict(SAMPLE), "threshold": {"value": value, "method": "chosen"}}
    with contextlib.nullcontext() if is_taken else pytest.raises(ManifestError, match=r"threshold\.value: must be"):
        decode_manifest(json.dumps(content).encode())
    with contextlib.nullcontext() if is_taken else pytest.raises(FieldError, match=r"threshold\.value: must be"):
        replace(SAMPLE, threshold=Threshold(value, "chosen"))


def test_a_refused_threshold_says_which_there_are() -> None:
    bounds = "must be above -1.0 and at most 0.9921875, the scores that this model can give"
    assert SAMPLE.map.threshold_fault(7.5) == f"{bounds}: at 7.5 no part, however bad, would be rejected"
    assert SAMPLE.map.threshold_fault(-1.0) == f"{bounds}: at -1.0 every part would be rejected"


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_says_what_to_do(version: object) -> None:
    content = {**asdict(SAMPLE), "format": version}
    with pytest.raises(ManifestError, match="this program reads 1: export the model again"):
        decode_manifest(json.dumps(content).encode())


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"map\.gain: unknown key"):
        decode_manifest(json.dumps({**asdict(SAMPLE), "map": {**asdict(SAMPLE.map), "gain": 1}}).encode())


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", ".", "", MANIFEST, "x/", "./x"])
def test_files_outside_the_folder_are_refused(name: str) -> None:
    with pytest.raises(ManifestError, match=r"files: .* is no file name"):
        decode_manifest(json.dumps({**asdict(SAMPLE), "files": {name: "0"}}).encode())


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", ".hidden", "a b"])
def test_an_id_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ManifestError, match="id: must be letters"):
        decode_manifest(json.dumps({**asdict(SAMPLE), "id": name}).encode())


WHOLE = {"frame_px": [9, 9], "crop_px": [0, 0, 9, 9], "input_px": [9, 9]}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("preprocess", {"frame_px": [0, 1], "crop_px": [0, 0, 1, 1], "input_px": [1, 1]}, "preprocess.frame_px"),
        ("preprocess", {"frame_px": [9, 9], "crop_px": [1, 0, 9, 9], "input_px": [1, 1]}, "preprocess.crop_px"),
        ("preprocess", {"frame_px": [9, 9], "crop_px": [-1, 0, 9, 9], "input_px": [1, 1]}, "preprocess.crop_px"),
        ("preprocess", {"frame_px": [9, 9], "crop_px": [0, 0, 4, 9], "input_px": [17, 1]}, "preprocess.input_px"),
        ("preprocess", {**WHOLE, "depth_bits": 7}, "preprocess.depth_bits"),
        ("preprocess", {**WHOLE, "fit": "pad"}, "preprocess.sides_px"),
        ("preprocess", {**WHOLE, "fit": "pad", "sides_px": [9, 8, 9, 9]}, "preprocess.sides_px"),
        ("preprocess", {**WHOLE, "sides_px": [9, 9, 9, 9]}, "preprocess.sides_px"),
        ("preprocess", {**WHOLE, "ignored": [0, 82]}, "preprocess.ignored"),
        ("preprocess", {**WHOLE, "ignored": [5, 2, 6, 1]}, "preprocess.ignored"),
        ("preprocess", {**WHOLE, "ignored": [5]}, "preprocess.ignored"),
        ("map", {"shape": [8, 8], "scale": 0.3, "top_pixels": 4}, "map.scale: must be a power of two"),
        ("map", {"shape": [8, 8], "scale": 0, "top_pixels": 4}, "map.scale: must be a power of two"),
        ("map", {"shape": [8, 8], "scale": 2.0**1000, "top_pixels": 4}, "map.scale"),
        ("map", {"shape": [8, 8], "scale": 0.5, "top_pixels": 65}, "map.top_pixels"),
        ("map", {"shape": [8, 8], "scale": 0.5, "top_pixels": 0}, "map.top_pixels"),
    ],
)
def test_impossible_values_are_refused(key: str, value: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        decode_manifest(json.dumps({**asdict(SAMPLE), key: value}).encode())


def test_an_altered_file_is_refused(package: Package) -> None:
    path = package.path(MODEL_ONNX)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"model\.onnx is not the file that was exported"):
        load_package(package.folder)


def test_a_missing_file_is_named(package: Package) -> None:
    package.path(GOLDEN_NPZ).unlink()
    with pytest.raises(ManifestError, match=r"golden\.npz is missing: copy the whole model folder again"):
        load_package(package.folder)


def test_a_file_that_is_not_in_the_manifest_is_not_given_out(package: Package) -> None:
    (package.folder / "other.onnx").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"has no other\.onnx: export the model again"):
        package.path("other.onnx")


def test_no_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no model at .*nothing: make one with scripts/export\.sh"):
        load_package(tmp_path / "nothing")


def test_a_refused_manifest_is_named_by_its_path(package: Package) -> None:
    edit_manifest(package, lambda manifest: manifest.pop("threshold"))
    with pytest.raises(ManifestError, match=r"manifest\.json: manifest: threshold: missing"):
        load_package(package.folder)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no archive", b"\x93NUMPY"])
def test_golden_vectors_that_cannot_be_read_are_refused(package: Package, content: bytes) -> None:
    replace_file(package, GOLDEN_NPZ, content)
    with pytest.raises(ManifestError, match=r"golden\.npz .*: export the model again"):
        load_package(package.folder).load_golden()


@pytest.mark.parametrize("count", [0, 1])
def test_golden_vectors_that_do_not_fit_the_model_are_refused(package: Package, count: int) -> None:
    """None at all would let every engine pass; a map of another shape would stop the line."""
    golden = package.load_golden()
    maps = golden.maps[:count] if count == 0 else np.zeros((1, 4, 4), np.int8)
    path = package.folder / "other.npz"
    np.savez(path, frames=golden.frames[:count], images=golden.images[:count], maps=maps)
    replace_file(package, GOLDEN_NPZ, path.read_bytes())
    with pytest.raises(ManifestError, match=r"golden\.npz .*: export the model again"):
        load_package(package.folder).load_golden()


def test_a_huge_manifest_is_not_parsed() -> None:
    with pytest.raises(ManifestError, match="too large"):
        decode_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(data: bytes) -> None:
    with pytest.raises(ManifestError):
        decode_manifest(data)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))


@given(st.sampled_from(sorted(asdict(SAMPLE))), JSON)
def test_any_value_of_a_key_is_taken_whole_or_refused(key: str, value: object) -> None:
    try:
        manifest = decode_manifest(json.dumps({**asdict(SAMPLE), key: value}).encode())
    except ManifestError:
        return
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.binary(max_size=4), st.integers(0, 600))
def test_damaged_manifests_are_refused_or_read(patch: bytes, at: int) -> None:
    whole = encode_manifest(replace(SAMPLE, provenance={}))
    with contextlib.suppress(ManifestError):
        decode_manifest(whole[:at] + patch + whole[at + len(patch) :])
