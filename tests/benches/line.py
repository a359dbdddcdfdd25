"""What the line itself costs, beside a loop that a user would write instead: `beltsight bench line`.

The engine is the trivial model of `host.export.trivial` in ONNX Runtime on one thread: the line's own work stands out.
The bare loop receives frames of the same size over ZeroMQ, shrinks them with OpenCV, runs the same model and publishes
the score with paho at QoS 0: no self-test, gate, deadline, outbox, recorder, tap, state or health.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.table import Table

from board.records.health import resident_mb
from host.export.trivial import FRAME_PX, write_trivial_package
from protocol.errors import run_main
from protocol.manifest import MODEL_ONNX
from protocol.sockets import open_socket
from sim.station import LOOPBACK, ROOT, free_port, start_broker

PARTS = 3000
PACED_PARTS, PACE_HZ = 1000, 50
DISTINCT = 64
SEED = 1


def main() -> int:
    argparse.ArgumentParser(prog="beltsight bench line", description=(__doc__ or "").splitlines()[0]).parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        model = write_trivial_package(Path(folder) / "models" / "trivial")
        console.print("running the line, twice …", highlight=False)
        paced = run_line(Path(folder), "--rate", str(PACE_HZ), "--speed", "6000", "--parts", str(PACED_PARTS))
        rushed = run_line(Path(folder), "--as-fast-as-possible", "--parts", str(PARTS))
        lean = run_line(Path(folder), "--parts", "20", "--rate", "10", "--speed", "1200", "--runtime", "opencv")
        console.print("running the bare loop …", highlight=False)
        bare = run_bare_loop(model / MODEL_ONNX, Path(folder))
    console.print(draw_table(paced, rushed, lean, bare))
    return 0


def run_line(folder: Path, *options: str) -> dict[str, Any]:
    """Report of one run of the fake line, recorder and tap on."""
    command = [sys.executable, str(ROOT / "sim" / "conveyor.py"), "--models", str(folder / "models")]
    # as many frames as the bare loop has: what is drawn is not the line's cost
    command += ["--model", "trivial", "--distinct", str(DISTINCT), "--seed", str(SEED), "--record"]
    command += ["--run-folder", str(folder / "run"), "--report", str(folder / "report.json"), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def run_bare_loop(model: Path, folder: Path) -> dict[str, float]:
    """Own cost a part when paced, parts/s when rushed; frames come from this process, a broker listens."""
    frames = np.random.default_rng(SEED).integers(0, 256, (DISTINCT, FRAME_PX, FRAME_PX, 3), dtype=np.uint8)
    port = free_port()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=bare_loop, args=(str(model), port, theirs), daemon=True)
    with start_broker(folder, port):
        worker.start()
        socket = open_socket("PUSH", ours.recv(), bind=False, high_water_mark=2, timeout_ms=5000)
        for number in range(PACED_PARTS):
            socket.send(frames[number % DISTINCT])
            time.sleep(1 / PACE_HZ)
        for number in range(PARTS):
            socket.send(frames[number % DISTINCT])
        result: dict[str, float] = ours.recv()
        worker.join()
        socket.close()
    return result


def bare_loop(model: str, mqtt_port: int, pipe: Connection) -> None:
    cv2.setNumThreads(1)
    session = onnxruntime.InferenceSession(model, one_thread(), providers=["CPUExecutionProvider"])
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect(LOOPBACK, mqtt_port)
    client.loop_start()
    endpoint = f"tcp://{LOOPBACK}:{free_port()}"
    socket = open_socket("PULL", endpoint, bind=True, high_water_mark=2, timeout_ms=60_000)
    pipe.send(endpoint)
    own_ms = []
    for number in range(PACED_PARTS + PARTS):
        if number == PACED_PARTS:
            rushed_since_s = time.monotonic()
        data = socket.recv()
        started_s = time.monotonic()
        frame = np.frombuffer(data, np.uint8).reshape(FRAME_PX, FRAME_PX, 3)
        small = cv2.resize(frame, (128, 128), interpolation=cv2.INTER_AREA)
        image = (small.astype(np.int16) - 128).astype(np.int8).transpose(2, 0, 1)[np.newaxis]
        ready_s = time.monotonic()
        (anomaly,) = session.run(None, {"image": image})
        judged_s = time.monotonic()
        score = float(anomaly.max())
        client.publish("bare/verdict", json.dumps({"part": number, "score": score, "ok": score < 32}), qos=0)
        own_ms.append((time.monotonic() - judged_s + ready_s - started_s) * 1e3)
    parts_per_s = PARTS / (time.monotonic() - rushed_since_s)
    p50, p99 = np.percentile(own_ms[:PACED_PARTS], (50, 99))
    client.loop_stop()
    pipe.send({"p50": float(p50), "p99": float(p99), "parts_per_s": parts_per_s, "rss_mb": resident_mb()})


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def draw_table(paced: dict[str, Any], rushed: dict[str, Any], lean: dict[str, Any], bare: dict[str, float]) -> Table:
    table = Table(title=f"The line's own cost, {os.cpu_count()} cores, trivial engine, seed {SEED}")
    for heading in ("figure", "line", "bare loop", "ratio", "wanted"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    own = paced["stages_ms"]["own"]
    rows = [
        ("own cost a part at 50 parts/s, p50 ms", own["p50"], bare["p50"], "< 3"),
        ("own cost a part at 50 parts/s, p99 ms", own["p99"], bare["p99"], "< 10"),
        ("parts/s, as fast as possible", rushed["parts_per_s"], bare["parts_per_s"], "≥ 200"),
        ("resident MB without ONNX Runtime", lean["board_rss_mb"], float("nan"), "< 150"),
        ("resident MB with ONNX Runtime", rushed["board_rss_mb"], bare["rss_mb"], ""),
    ]
    for name, ours, theirs, wanted in rows:
        ratio = "" if np.isnan(theirs) else f"{ours / theirs:.2f}"
        table.add_row(name, f"{ours:.2f}", "" if np.isnan(theirs) else f"{theirs:.2f}", ratio, wanted)
    return table


if __name__ == "__main__":
    sys.exit(run_main(main))
