"""On the emulated processor: the kernels run every NUMBER.onnx of a folder and are compared with NUMBER.npz."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from board.engines.kernels.engine import KernelEngine, find_library


def main() -> int:
    library, equal = find_library(), 0
    if library is None:
        print("the kernels are not built: `beltsight kernels`")
        return 1
    for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
        expected = np.load(path.with_suffix(".npz"))
        kernels = KernelEngine(path, library)
        if np.array_equal(kernels.infer(expected["image"]), expected["map"]):
            equal += 1
        else:
            print(f"{path.name} differs")
        kernels.close()
    print("equal", equal)
    return 0


if __name__ == "__main__":
    sys.exit(main())
