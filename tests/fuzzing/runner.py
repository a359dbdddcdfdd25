"""One decoder under the fuzzer, in a process of its own: `python -m tests.fuzzing.runner NAME EXECUTIONS SEED REPORT`.

Coverage leads atheris where it is installed; else Hypothesis damages the examples. The process ends with code 1 at the
first input that brings another error than the decoder's own, a second of work, or 256 MB more memory; REPORT names it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
if HAS_ATHERIS:
    import atheris

    with atheris.instrument_imports(include=["protocol", "board"]):
        from tests.fuzzing.decoders import Decoder, open_decoders, try_one
else:
    from tests.fuzzing.decoders import Decoder, open_decoders, try_one

MAX_S = 1.0
MAX_MB = 256.0
MAX_INPUT_BYTES = 8192


class Trial:
    """Counts, measures and ends."""

    def __init__(self, name: str, decoder: Decoder, executions: int, report: Path) -> None:
        self._name, self._decoder, self._executions, self._report = name, decoder, executions, report
        self._done = 0
        self._slowest_s = 0.0
        self._began_s, self._began_mb = time.monotonic(), peak_mb()

    def __call__(self, data: bytes) -> None:
        started_s = time.process_time()  # of this process: others on the machine are no hang
        try:
            try_one(self._decoder, data)
        except Exception as error:  # noqa: BLE001 - any other than its own is what is looked for
            self._end(data, f"{type(error).__name__}: {error}")
        took_s = time.process_time() - started_s
        self._slowest_s = max(self._slowest_s, took_s)
        self._done += 1
        if took_s > MAX_S:
            self._end(data, f"took {took_s:.1f} s")
        if peak_mb() - self._began_mb > MAX_MB:
            self._end(data, f"needs {peak_mb() - self._began_mb:.0f} MB")
        if self._done >= self._executions:
            self._end(None, "")

    def _end(self, data: bytes | None, problem: str) -> None:
        content = {
            "decoder": self._name,
            "by": "atheris" if HAS_ATHERIS else "hypothesis",
            "executions": self._done,
            "seconds": round(time.monotonic() - self._began_s, 1),
            "slowest_ms": round(self._slowest_s * 1e3, 2),
            "more_mb": round(peak_mb() - self._began_mb, 1),
            "problem": problem,
            "input": data.hex() if data is not None else "",
        }
        self._report.write_text(json.dumps(content))
        sys.stdout.flush()
        os._exit(1 if problem else 0)  # atheris does not return


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def lead_by_coverage(trial: Trial, decoder: Decoder, seed: int) -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, example in enumerate(decoder.seeds):
            (Path(corpus) / str(number)).write_bytes(example)
        # A malloc of 256 MB is found here, growth over many inputs by the trial.
        limits = [
            f"-seed={seed}",
            f"-max_len={MAX_INPUT_BYTES}",
            "-rss_limit_mb=2048",
            f"-malloc_limit_mb={MAX_MB:.0f}",
        ]
        atheris.Setup([sys.argv[0], *limits, "-verbosity=0", corpus], trial)
        atheris.Fuzz()


def damage_by_chance(trial: Trial, decoder: Decoder, seed: int) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    from tests.board.test_foreign_bytes import damaged

    inputs = st.one_of(*(damaged(example) for example in decoder.seeds), st.binary(max_size=MAX_INPUT_BYTES))
    while True:  # it draws no input twice in one run, and stops early where it finds no more
        run = settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        seeded(seed)(run(given(inputs)(lambda data: trial(data))))()  # noqa: PLW0108 - of a function it takes the name
        seed += 1


def main() -> int:
    name, executions, seed, report = sys.argv[1:]
    decoder = open_decoders()[name]
    trial = Trial(name, decoder, int(executions), Path(report))
    for example in decoder.seeds:
        trial(example)
    (lead_by_coverage if HAS_ATHERIS else damage_by_chance)(trial, decoder, int(seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
