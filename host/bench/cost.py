"""What a fitted detector costs for one picture: time and memory in a process of its own, on one thread."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import pickle
import re
import sys
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from host.bench.detector import Detector, Images
from host.learning.backbone import import_torchvision

TIMED = 5  # pictures
LIMIT_S = 300.0
# What nearly every detector is loaded with, five seconds of it.
PRELOADED = (__name__, "host.bench.net", "host.bench.losses")
ANOMALIB = "host.bench.anomalib_loaded"  # ten seconds, where it is in use
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def share_libraries(modules: Iterable[str]) -> None:
    """Before the first row: what detectors of these modules load is loaded once for all processes that measure them."""
    if "anomalib_set" in modules:
        with contextlib.suppress(ImportError):  # its rows say that it is missing
            importlib.import_module(ANOMALIB)


def measure_cost(detector: Detector, images: Images) -> dict[str, float]:
    """time_ms is the median of a picture, peak_bytes what the process needed beyond the libraries it had loaded."""
    content = pickle.dumps(detector)
    costs = _measure_in_process(content, images[:TIMED])
    with FlopCounterMode(display=False) as counter:
        detector.score_map(images[:1])
    costs["macs"] = counter.get_total_flops() // 2
    costs["parameters"] = count_parameters(detector)
    costs["stored_bytes"] = len(content)
    return costs


def count_parameters(detector: Detector) -> int:
    """Of all networks that it holds; what is remembered of pictures (a memory bank, Gaussians) is no parameter."""
    nets = [value for value in vars(detector).values() if isinstance(value, nn.Module)]
    parameters = {id(parameter): parameter.numel() for net in nets for parameter in net.parameters()}
    return sum(parameters.values())


def _measure_in_process(content: bytes, images: Images) -> dict[str, float]:
    """Nothing where the process died or took too long."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    context = multiprocessing.get_context("forkserver")  # fresh processes; the libraries are loaded once for all
    context.set_forkserver_preload([*PRELOADED, *({ANOMALIB} & sys.modules.keys())])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_score_one_by_one, args=(content, images, sender), daemon=True)
    process.start()
    sender.close()
    try:
        return dict(receiver.recv()) if receiver.poll(LIMIT_S) else {}
    except EOFError:
        return {}
    finally:
        process.kill()
        process.join()
        receiver.close()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _score_one_by_one(content: bytes, images: Images, sender: Connection) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if b"torchvision" in content:
        import_torchvision()  # before anything that was pickled asks for it
    pickle.loads(content)  # noqa: S301 - subtle: loads the libraries that the detector asks for, and lets it go again
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: Linux, proc(5)
    start_bytes = _read_memory("VmRSS")
    detector = pickle.loads(content)  # noqa: S301 (made by the parent a moment ago)
    taken_ms = []
    for index in range(len(images)):
        started_ns = time.perf_counter_ns()
        detector.score_map(images[index : index + 1])
        taken_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
    sender.send({"time_ms": float(np.median(taken_ms)), "peak_bytes": _read_memory("VmHWM") - start_bytes})


def _read_memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0
