"""ONNX Runtime through its C API: for 32-bit ARM, where it can be had as a library but not as a Python package.

The PyPI package `sherpa-onnx-core` carries a plain `libonnxruntime.so` for ARMv7. Only functions that have been in the
API since its first version are called, by their place in `struct OrtApi` (onnxruntime_c_api.h, where the order of
functions never changes).

It runs `carried.onnx`, whose integers are carried in float32: on 32-bit ARM, ONNX Runtime's integer addition (of the
QDQ graph in model.onnx, seen in 1.28) rounds halves up, and so leaves the integer truth.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.engines.answer import drop_single
from board.engines.weights import require_weights_inside
from board.preprocess import as_input
from protocol.errors import EngineError

API_VERSION = 11  # the first with all that is used here; every later library has it
FLOAT = 1  # ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
SEVERITY_ERROR = 3
ARENA_ALLOCATOR, DEFAULT_MEMORY = 1, 0

# Function -> its place in struct OrtApi, and what it takes.
FUNCTIONS: dict[str, tuple[int, list[type]]] = {
    "CreateEnv": (3, [c_int, c_char_p, POINTER(c_void_p)]),
    "CreateSession": (7, [c_void_p, c_char_p, c_void_p, POINTER(c_void_p)]),
    "Run": (
        9,
        [
            c_void_p,
            c_void_p,
            POINTER(c_char_p),
            POINTER(c_void_p),
            c_size_t,
            POINTER(c_char_p),
            c_size_t,
            POINTER(c_void_p),
        ],
    ),
    "CreateSessionOptions": (10, [POINTER(c_void_p)]),
    "SetIntraOpNumThreads": (24, [c_void_p, c_int]),
    "SetInterOpNumThreads": (25, [c_void_p, c_int]),
    "CreateTensorWithDataAsOrtValue": (
        49,
        [c_void_p, c_void_p, c_size_t, POINTER(c_int64), c_size_t, c_int, POINTER(c_void_p)],
    ),
    "GetTensorMutableData": (51, [c_void_p, POINTER(c_void_p)]),
    "GetTensorElementType": (60, [c_void_p, POINTER(c_int)]),
    "GetDimensionsCount": (61, [c_void_p, POINTER(c_size_t)]),
    "GetDimensions": (62, [c_void_p, POINTER(c_int64), c_size_t]),
    "GetTensorTypeAndShape": (65, [c_void_p, POINTER(c_void_p)]),
    "CreateCpuMemoryInfo": (69, [c_int, c_int, POINTER(c_void_p)]),
    "AddSessionConfigEntry": (130, [c_void_p, c_char_p, c_char_p]),
}
GET_ERROR_MESSAGE, RELEASE_STATUS = 2, 93
RELEASES = {
    "Env": 92,
    "MemoryInfo": 94,
    "Session": 95,
    "Value": 96,
    "TensorTypeAndShapeInfo": 99,
    "SessionOptions": 100,
}


class OnnxCEngine:
    name = "arm-onnxruntime"

    def __init__(self, model: Path, threads: int, library: Path) -> None:
        """Raises: EngineError if the library or the model does not load."""
        self._held: list[tuple[str, c_void_p]] = []
        self._api = _Api(library)
        try:
            self._open(model, threads)
        except EngineError:
            self.close()
            raise

    def _open(self, model: Path, threads: int) -> None:
        require_weights_inside(model)
        # subtle: the library's first look at the processor is in CreateEnv, and needs /proc/cpuinfo
        environment = self._make("Env", "CreateEnv", SEVERITY_ERROR, b"beltsight")
        options = self._make("SessionOptions", "CreateSessionOptions")
        self._api.call("SetIntraOpNumThreads", options, threads)
        self._api.call("SetInterOpNumThreads", options, 1)
        self._api.call("AddSessionConfigEntry", options, b"session.intra_op.allow_spinning", b"0")
        self._session = self._make("Session", "CreateSession", environment, str(model).encode(), options)
        self._memory = self._make("MemoryInfo", "CreateCpuMemoryInfo", ARENA_ALLOCATOR, DEFAULT_MEMORY)

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.int8]:
        picture = as_input(image).astype(np.float32)
        shape = (c_int64 * picture.ndim)(*picture.shape)
        given, answer = c_void_p(), c_void_p()
        arguments = (self._memory, picture.ctypes.data, picture.nbytes, shape, picture.ndim, FLOAT, byref(given))
        self._api.call("CreateTensorWithDataAsOrtValue", *arguments)
        try:
            names_in, names_out = (c_char_p * 1)(b"image"), (c_char_p * 1)(b"map")
            self._api.call("Run", self._session, None, names_in, byref(given), 1, names_out, 1, byref(answer))
            return self._read(answer)
        finally:
            self._api.release("Value", answer)
            self._api.release("Value", given)

    def close(self) -> None:
        while self._held:
            self._api.release(*self._held.pop())

    def _make(self, kind: str, function: str, *arguments: object) -> c_void_p:
        """Something of the library's that `close` gives back."""
        made = c_void_p()
        self._api.call(function, *arguments, byref(made))
        self._held.append((kind, made))
        return made

    def _read(self, value: c_void_p) -> NDArray[np.int8]:
        """A copy of a tensor's last two dimensions, or three where it has several channels."""
        shape = self._shape(value)
        if len(shape) < 2 or np.prod(shape[:-3]) != 1:
            raise EngineError(f"ONNX Runtime gives a map of shape {shape}: export the model again")
        data = c_void_p()
        self._api.call("GetTensorMutableData", value, byref(data))
        content = ctypes.string_at(data, int(np.prod(shape)) * np.dtype(np.float32).itemsize)
        return drop_single(np.frombuffer(content, np.float32).reshape(shape)).astype(np.int8)

    def _shape(self, value: c_void_p) -> tuple[int, ...]:
        about, kind, count = c_void_p(), c_int(), c_size_t()
        self._api.call("GetTensorTypeAndShape", value, byref(about))
        try:
            self._api.call("GetTensorElementType", about, byref(kind))
            if kind.value != FLOAT:
                raise EngineError("ONNX Runtime gives a map that is no float32: export the model again")
            self._api.call("GetDimensionsCount", about, byref(count))
            sides = (c_int64 * count.value)()
            self._api.call("GetDimensions", about, sides, count)
            return tuple(sides)
        finally:
            self._api.release("TensorTypeAndShapeInfo", about)


class _Api:
    def __init__(self, library: Path) -> None:
        try:
            base = ctypes.CDLL(str(library)).OrtGetApiBase
        except (OSError, AttributeError) as error:
            raise EngineError(f"{library} is no ONNX Runtime for this processor ({error})") from None
        base.restype = POINTER(c_void_p)
        get_api = ctypes.CFUNCTYPE(POINTER(c_void_p), c_uint32)(base()[0])
        self._table = get_api(API_VERSION)
        if not self._table:
            raise EngineError(f"{library} is older than API version {API_VERSION}: install sherpa-onnx-core again")
        self._message = ctypes.CFUNCTYPE(c_char_p, c_void_p)(self._table[GET_ERROR_MESSAGE])
        self._free_status = ctypes.CFUNCTYPE(None, c_void_p)(self._table[RELEASE_STATUS])
        self._functions = {
            name: ctypes.CFUNCTYPE(c_void_p, *takes)(self._table[place]) for name, (place, takes) in FUNCTIONS.items()
        }

    def call(self, name: str, *arguments: object) -> None:
        """Raises: EngineError with ONNX Runtime's own words."""
        status = self._functions[name](*arguments)
        if status:
            message = (self._message(status) or b"").decode(errors="replace")
            self._free_status(status)
            raise EngineError(f"ONNX Runtime, {name}: {(message.splitlines() or [''])[0][:200]}")

    def release(self, kind: str, handle: c_void_p) -> None:
        if handle:
            ctypes.CFUNCTYPE(None, c_void_p)(self._table[RELEASES[kind]])(handle)


def find_library() -> Path | None:
    """Where `sherpa-onnx-core` has put ONNX Runtime for this processor; None where it is not installed."""
    if platform.machine() != "armv7l":  # elsewhere there is the Python package
        return None
    package = importlib.util.find_spec("sherpa_onnx")
    places = package.submodule_search_locations if package else None
    found = [Path(place) / "lib" / "libonnxruntime.so" for place in places or ()]
    return next((path for path in found if path.is_file()), None)
