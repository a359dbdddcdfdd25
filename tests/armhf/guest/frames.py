"""On the emulated processor: load a model, judge some golden images, compare with the golden maps.

frames.py MODEL_FOLDER RUNTIME FRAMES     FRAMES -1: import everything and load nothing
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from board.engines.chain import open_arm
from board.engines.kernels import engine as _kernels
from board.engines.onnx_c import find_library
from board.engines.settings import EngineSettings
from protocol.manifest import load_package


def main() -> int:
    folder, runtime, frames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    package = load_package(folder)
    golden = package.load_golden()
    print(f"library {_kernels.find_library()} {find_library()}")
    if frames < 0:
        return 0
    engine = open_arm(package, EngineSettings(runtime=runtime))  # type: ignore[arg-type]
    for number in range(frames):
        index = number % len(golden.images)
        if not np.array_equal(engine.infer(golden.images[index]), golden.maps[index]):
            print(f"{engine.name}: image {index} does not give the golden map")
            return 1
    print(f"{engine.name}: {frames} frames equal")
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
