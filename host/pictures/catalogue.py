"""Public sets of pictures that `beltsight get-data` fetches from their publishers, with licence and checksum.

Where a checksum comes from stands beside it. "" means that the publisher gives none: it is recorded at the first
download, and later ones must agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MB = 1_000_000


@dataclass(frozen=True)
class Source:
    """One file of a set."""

    url: str
    checksum: str  # "sha256:…", "md5:…" or ""
    largest_bytes: int  # of the download; more is refused

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class DataSet:
    """`.tar.*` files are unpacked without their one top folder, other files are kept as they are."""

    name: str
    what: str
    licence: str
    page: str  # where the publisher describes the set and its licence
    sources: tuple[Source, ...]
    largest_unpacked_bytes: int
    files: dict[str, int] = field(default_factory=dict)  # folder -> number of files that it must have


_CC_BY_NC_SA = "CC BY-NC-SA 4.0: not for commercial use; name the authors, share changes under the same licence"
_SAMPLE_VIDEOS = "https://github.com/intel-iot-devkit/sample-videos"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"

CATALOGUE = (
    DataSet(
        name="mvtec-bottle",
        what="MVTec AD, bottle: 209 good pictures to train on, 20 good and 63 defective ones with masks to test",
        licence=f"{_CC_BY_NC_SA} (Bergmann et al., CVPR 2019)",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        sources=(
            Source(
                "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/download/"
                "420937370-1629951468/bottle.tar.xz",
                "",
                300 * MB,
            ),
        ),
        largest_unpacked_bytes=500 * MB,
        files={
            "train/good": 209,
            "test/good": 20,
            "test/broken_large": 20,
            "test/broken_small": 22,
            "test/contamination": 21,
            "ground_truth/broken_large": 20,
            "ground_truth/broken_small": 22,
            "ground_truth/contamination": 21,
        },
    ),
    DataSet(
        name="sample-videos",
        what="two short films: bottles on a table, fruit and vegetables on a belt",
        licence="CC BY 4.0: name the author (Intel)",
        page=_SAMPLE_VIDEOS,
        sources=(
            Source(
                f"{_SAMPLE_VIDEOS}/raw/master/bottle-detection.mp4",
                "sha256:d52ba94aedf8a923c342fe9ea1d2bd85f712c4cc0f49a6de1bac43eebe3a48ff",  # of the file in use here
                2 * MB,
            ),
            Source(
                f"{_SAMPLE_VIDEOS}/raw/master/preview/fruit-and-vegetable-detection.gif",
                "sha256:e4cd631701146c47a012edf4376a8e9911fec1978b928cc9693ec77ad9ab7a18",  # of the file in use here
                8 * MB,
            ),
        ),
        largest_unpacked_bytes=10 * MB,
    ),
    DataSet(
        name="dtd",
        what="Describable Textures Dataset: 5,640 pictures of 47 textures",
        licence="for research; name the authors (Cimpoi et al., CVPR 2014)",
        page="https://www.robots.ox.ac.uk/~vgg/data/dtd",
        sources=(
            Source(
                "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
                "md5:fff73e5086ae6bdbea199a49dfb8a4c1",  # torchvision.datasets.DTD
                700 * MB,
            ),
        ),
        largest_unpacked_bytes=900 * MB,
    ),
    DataSet(
        name="cifar10",
        what="CIFAR-10: 60,000 pictures of 32 × 32 pixels in ten classes",
        licence="none stated; name the author (Krizhevsky, 2009)",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        sources=(
            Source(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "md5:c58f30108f718f92721af3b95e74349a",  # the publisher's page
                200 * MB,
            ),
        ),
        largest_unpacked_bytes=250 * MB,
    ),
    DataSet(
        name="mnist",
        what="MNIST: 70,000 digits of 28 × 28 pixels, from PyTorch's mirror (the publisher's is often shut)",
        licence="none stated; name the authors (LeCun et al., 1998)",
        page="http://yann.lecun.com/exdb/mnist",
        sources=(  # checksums: torchvision.datasets.MNIST
            Source(f"{_MNIST}/train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873", 12 * MB),
            Source(f"{_MNIST}/train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432", 1 * MB),
            Source(f"{_MNIST}/t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3", 3 * MB),
            Source(f"{_MNIST}/t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c", 1 * MB),
        ),
        largest_unpacked_bytes=20 * MB,
    ),
)
