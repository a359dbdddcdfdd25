"""ONNX Runtime's C library where it cannot be used; scripts/test-armhf has it at work."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from board.engines.chain import open_arm
from board.engines.onnx_c import OnnxCEngine, find_library
from board.engines.settings import EngineSettings
from protocol.errors import EngineError
from protocol.manifest import Package


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libonnxruntime.so").write_bytes(b"\x7fELF of nothing")
    with pytest.raises(EngineError, match="no ONNX Runtime for this processor"):
        OnnxCEngine(tmp_path / "carried.onnx", 1, tmp_path / "libonnxruntime.so")


def test_another_library_is_refused(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler: install gcc")
    library = tmp_path / "libother.so"
    command = ["gcc", "-shared", "-nostdlib", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=b"int other(void) { return 0; }", check=True)
    with pytest.raises(EngineError, match="no ONNX Runtime for this processor"):
        OnnxCEngine(tmp_path / "carried.onnx", 1, library)


def test_the_settings_library_is_the_one_that_is_taken(trivial_package: Package, tmp_path: Path) -> None:
    settings = replace(EngineSettings(runtime="onnxruntime"), onnx_library=tmp_path / "missing.so")
    with pytest.raises(EngineError, match=r"missing\.so"):
        open_arm(trivial_package, settings)


def test_there_is_none_to_find_where_there_is_a_python_package() -> None:
    assert find_library() is None
