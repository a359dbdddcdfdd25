"""On the emulated processor: networks of ncnn's published benchmark, with weights of zero, for calibration.

    ncnn_networks.py squeezenet|squeezenet_int8|resnet18|resnet18_int8 FRAMES     FRAMES 0: load only

Needs the PyPI package ncnn for ARMv7. The shapes are those of SqueezeNet 1.1 (227 × 227) and ResNet-18 (224 × 224), as
in ncnn's own benchmark, where an int8 layer writes int8 if only int8 layers read it.
"""

from __future__ import annotations

import sys

import ncnn


class Writer:
    """The text of a .param file, layer by layer."""

    def __init__(self, *, int8: bool, side_px: int) -> None:
        self._int8 = int8
        self._lines: list[str] = []
        self._blobs: set[str] = set()
        self._splits = 0
        self.layer("Input", "data", [], ["data"], f"0={side_px} 1={side_px} 2=3")

    def layer(self, kind: str, name: str, sources: list[str], targets: list[str], settings: str = "") -> None:
        self._lines.append(
            f"{kind} {name} {len(sources)} {len(targets)} {' '.join(sources + targets)} {settings}".rstrip()
        )
        self._blobs.update(targets)

    def convolve(
        self,
        name: str,
        source: str,
        channels: tuple[int, int],
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        relu: bool = True,
        stays_int8: bool = False,
    ) -> str:
        weights = channels[0] * channels[1] * kernel * kernel
        settings = f"0={channels[1]} 1={kernel} 3={stride} 4={pad} 5=1 6={weights}"
        settings += (" 8=102" if stays_int8 else " 8=2") if self._int8 else ""
        self.layer("Convolution", name, [source], [name], settings + (" 9=1" if relu else ""))
        return name

    def split(self, source: str) -> tuple[str, str]:
        self._splits += 1
        pair = (f"{source}_a", f"{source}_b")
        self.layer("Split", f"split{self._splits}", [source], list(pair))
        return pair

    def text(self) -> str:
        return "\n".join(["7767517", f"{len(self._lines)} {len(self._blobs)}", *self._lines, ""])


# (squeezed channels, expanded channels, whether it is pooled before)
FIRES = (
    (16, 64, True),
    (16, 64, False),
    (32, 128, True),
    (32, 128, False),
    (48, 192, True),
    (48, 192, False),
    (64, 256, False),
    (64, 256, False),
)


def squeezenet(*, int8: bool) -> str:
    write = Writer(int8=int8, side_px=227)
    at = write.convolve("conv1", "data", (3, 64), 3, stride=2)
    channels = 64
    for number, (squeezed, expanded, pooled) in enumerate(FIRES):
        if pooled:
            write.layer("Pooling", f"pool{number}", [at], [f"pool{number}"], "1=3 2=2")
            at = f"pool{number}"
        small = write.convolve(f"squeeze{number}", at, (channels, squeezed), 1, stays_int8=True)
        one, other = write.split(small)
        wide = [
            write.convolve(f"one{number}", one, (squeezed, expanded), 1),
            write.convolve(f"three{number}", other, (squeezed, expanded), 3, pad=1),
        ]
        at, channels = f"fire{number}", 2 * expanded
        write.layer("Concat", at, wide, [at])
    at = write.convolve("conv10", at, (512, 1000), 1, pad=1)
    write.layer("Pooling", "pool10", [at], ["pool10"], "0=1 4=1")
    write.layer("Softmax", "prob", ["pool10"], ["output"])
    return write.text()


def resnet18(*, int8: bool) -> str:
    write = Writer(int8=int8, side_px=224)
    write.layer(
        "Pooling", "pool1", [write.convolve("conv1", "data", (3, 64), 7, stride=2, pad=3)], ["pool1"], "1=3 2=2"
    )
    at, channels = "pool1", 64
    for number, wanted in enumerate([64, 64, 128, 128, 256, 256, 512, 512]):
        stride = 2 if wanted != channels else 1
        one, other = write.split(at)
        inner = write.convolve(f"a{number}", one, (channels, wanted), 3, stride=stride, pad=1, stays_int8=True)
        outer = write.convolve(f"b{number}", inner, (wanted, wanted), 3, pad=1, relu=False)
        if number % 2 == 0:
            other = write.convolve(f"s{number}", other, (channels, wanted), 1, stride=stride, relu=False)
        write.layer("Eltwise", f"add{number}", [other, outer], [f"add{number}"], "0=1")
        write.layer("ReLU", f"relu{number}", [f"add{number}"], [f"relu{number}"])
        at, channels = f"relu{number}", wanted
    write.layer("Pooling", "pool5", [at], ["pool5"], "0=1 1=7 4=1")
    write.layer("InnerProduct", "fc", ["pool5"], ["fc"], "0=1000 1=1 2=512000" + (" 8=2" if int8 else ""))
    write.layer("Softmax", "prob", ["fc"], ["output"])
    return write.text()


def main() -> int:
    name, frames = sys.argv[1], int(sys.argv[2])
    int8 = name.endswith("_int8")
    text = squeezenet(int8=int8) if name.startswith("squeezenet") else resnet18(int8=int8)
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_vulkan_compute = False
    net.load_param_mem(text)
    net.load_model(ncnn.DataReaderFromEmpty())
    side_px = 227 if name.startswith("squeezenet") else 224
    image = ncnn.Mat(side_px, side_px, 3)
    image.fill(0.01)
    for _ in range(frames):
        extractor = net.create_extractor()
        extractor.input("data", image)
        code, output = extractor.extract("output")
        print(code, output.w, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
