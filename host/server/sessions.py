"""A model in ONNX Runtime that judges several pictures at once, each bit for bit as if it were alone."""

from __future__ import annotations

import io

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from board.engines.onnx_runtime import error_types, first_line, session_options
from board.pictures import decode_pixels
from board.preprocess import preprocess
from protocol.arrays import load_arrays
from protocol.detection import Request
from protocol.errors import EngineError, InputError, MessageError
from protocol.manifest import Manifest
from protocol.wire import Buffer

# Map steps. The integer truth has none; a network in floating point may round a tie otherwise on another processor.
MAX_TOLERANCE = 1
Image = NDArray[np.uint8]


class Model:
    """Bounded use of memory: a batch is as large as the front makes it, a picture as large as the manifest says."""

    def __init__(self, manifest: Manifest, onnx: bytes, golden: bytes, threads: int) -> None:
        """Load and test it. Raises: EngineError."""
        self.manifest = manifest
        self._errors = error_types()
        try:
            self._session = onnxruntime.InferenceSession(
                onnx, session_options(threads), providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise EngineError(f"ONNX Runtime refuses the model: {first_line(error)}") from None
        # a graph exported for one picture at a time runs them one after the other
        self._takes_batches = self._session.get_inputs()[0].shape[0] != 1
        self._test(golden)

    def image(self, request: Request, pixels: Buffer) -> Image:
        """The network's image of a request. Raises: MessageError if its pixels do not decode."""
        picture = decode_pixels(request.encoding, request.shape, pixels)
        if request.content == "image":
            return picture
        try:
            return preprocess(picture, self.manifest.preprocess)
        except InputError as error:
            raise MessageError(str(error)) from None

    def infer(self, images: list[Image]) -> NDArray[np.int8]:
        """Anomaly maps int8 (n, h', w') of images uint8 (h, w, 3). Raises: EngineError."""
        # the integer normalisation of `board.preprocess.as_input`, of all pictures at once
        batch = np.stack(images)
        batch ^= np.uint8(0x80)
        inputs = np.ascontiguousarray(batch.view(np.int8).transpose(0, 3, 1, 2))
        try:
            runs = [inputs] if self._takes_batches else np.split(inputs, len(inputs))
            maps = np.concatenate([self._session.run(None, {"image": run})[0] for run in runs])
        except self._errors as error:
            raise EngineError(f"ONNX Runtime gives no map: {first_line(error)}") from None
        if maps.dtype != np.int8 or maps.shape != (len(images), 1, *self.manifest.map.shape):
            raise EngineError(f"the model gave maps of {maps.dtype} {maps.shape}: export it again")
        return maps[:, 0]

    def _test(self, golden: bytes) -> None:
        """Like a board's engine, it must give the golden maps, one by one and together.

        Only golden vectors of a network in floating point allow a tolerance, which no board takes notice of.
        """
        try:
            arrays = load_arrays(io.BytesIO(golden), ("images", "maps"), optional=("tolerance",))
            images, maps = arrays["images"], arrays["maps"]
            tolerance = int(arrays.get("tolerance", np.array(0)).item())
        except (ValueError, TypeError, OverflowError) as error:
            raise EngineError(f"the golden vectors cannot be read ({error}): export the model again") from None
        size = (*self.manifest.preprocess.input_px, 3)
        fits = images.ndim == 4 and images.dtype == np.uint8 and images.shape[1:] == size and len(images) > 0
        if not fits or maps.ndim != 3 or maps.dtype != np.int8 or len(maps) != len(images):
            raise EngineError("the golden vectors do not fit the manifest: export the model again")
        single = np.concatenate([self.infer([image]) for image in images])
        if not np.array_equal(self.infer(list(images)), single):
            raise EngineError("the model judges a picture otherwise when it is judged with others: export it again")
        off = np.abs(single.astype(np.int16) - maps) if single.shape == maps.shape else np.array(MAX_TOLERANCE + 1)
        if off.max() > min(tolerance, MAX_TOLERANCE):
            raise EngineError("the model does not give its golden maps here: export it again")
