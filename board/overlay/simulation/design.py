"""The design as Verilog, kept while its sources do not change: Amaranth takes half a minute to write it."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

from board.overlay.errors import OverlayError

OVERLAY = Path(__file__).resolve().parent.parent


def find_verilog(folder: Path) -> str:
    """As `emit_verilog` writes it. Of several processes one writes it, the others wait. Raises: OverlayError."""
    kept = folder / f"design-{_digest_sources()}.v"
    folder.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            try:
                from board.overlay.hardware.overlay import emit_verilog  # noqa: PLC0415 - needs Amaranth
            except ImportError as error:
                raise OverlayError(
                    f"fpga-sim needs Amaranth ({error}): pip install '.[overlay]' in the clone"
                ) from None
            fresh = kept.with_suffix(".part")
            fresh.write_text(emit_verilog(), encoding="utf-8")
            fresh.replace(kept)
    return kept.read_text(encoding="utf-8")


def _digest_sources() -> str:
    digest = hashlib.sha256()
    for path in sorted(OVERLAY.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
