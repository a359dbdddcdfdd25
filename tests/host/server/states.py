"""Versions and requests without files and sockets."""

from __future__ import annotations

from host.server.models import Version
from host.server.pending import Pending
from protocol.detection import Request
from protocol.manifest import FORMAT, MODEL_ONNX, AnomalyMap, Manifest, Preprocess, Threshold


def make_version(digest: str, model: str = "model") -> Version:
    manifest = Manifest(
        format=FORMAT,
        id=model,
        product="none",
        preprocess=Preprocess((8, 8), (0, 0, 8, 8), (8, 8)),
        map=AnomalyMap((2, 2), 1.0, 1),
        threshold=Threshold(0.0, "none"),
        files={MODEL_ONNX: digest},
    )
    return Version(manifest, (b"", b"", b""), digest)


def make_pending(version: Version, *, client: str = "a", number: int = 1, expires_s: float = 1e9) -> Pending:
    """Of 100 bytes; it arrived at second `number`."""
    request = Request(number, version.id, 1000.0, (8, 8))
    return Pending(client.encode(), request, b"", b"", 100, version, float(number), expires_s)
