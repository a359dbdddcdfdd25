"""The real station as a process that can be killed, and the belt that feeds it, camera faults included."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from host.export.trivial import FRAME_PX
from protocol.messages import Trigger, clock_id
from protocol.sockets import Socket, open_socket
from protocol.wire import EndOfRun, encode_message, encode_raw_frame
from sim.station import LOOPBACK, ROOT, StationSettings, board_config, free_port
from tests.examples import grey_frame

BELT_MM_S, GATE_MM, WINDOW_MM, LEAD_MS = 100.0, 400.0, 1.0, 5.0  # 4 s to the gate: no part races it
GATE_OPENS_S = (GATE_MM - WINDOW_MM / 2) / BELT_MM_S - LEAD_MS / 1e3  # after the light barrier
LIBFAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
STOP_WITHIN_S = 20.0
SEND_WITHIN_MS = 30_000
LAST_WORDS = 20  # lines


class Station:
    """`board/run.py`. Its output comes through a pipe, which a full disk does not close."""

    def __init__(self, folder: Path, mqtt_port: int, server_port: int | None = None, *, logs_gate: bool = True) -> None:
        """With a `server_port` the detection server there is asked first, and tested every tenth part."""
        self.belt_port = free_port()
        settings = StationSettings(
            model="trivial",
            models_dir=folder / "models",
            folder=folder,
            triggered=True,
            belt_speed_mm_s=BELT_MM_S,
            gate_distance_mm=GATE_MM,
            window_mm=WINDOW_MM,
            part_mm=76.0,
            runtime="auto",
            record=False,
            mqtt_port=mqtt_port,
            belt_port=self.belt_port,
            tap_port=free_port(),
            engines=("remote", "arm") if server_port else ("arm",),
        )
        config = board_config(settings).replace("[mqtt]\n", '[mqtt]\nbroker_at_start = "optional"\n')
        config = config.replace("[gate]\n", f"[gate]\nlead_ms = {LEAD_MS}\n")
        if server_port:
            config = config.replace("[engines]\n", "[engines]\nself_test_every = 10\nretry_s = 0.3\n")
            config += f'\n[engines.remote]\nendpoint = "tcp://{LOOPBACK}:{server_port}"\n'
        self._config = folder / "line.toml"
        if not logs_gate:
            config = config.replace('dry_log = "gate.jsonl"\n', "")
        self._config.write_text(config)
        self.outbox = folder / "outbox.sqlite"
        self._clock = folder / "clock"  # offset of its wall clock; the monotonic one is not stepped
        self.step_clock(0)
        self.output: deque[str] = deque(maxlen=LAST_WORDS)
        self.start()

    def start(self, *, steps_clock: bool = False) -> None:
        """It runs when this returns; with `steps_clock` under libfaketime, which makes it slower."""
        command = [sys.executable, str(ROOT / "board" / "run.py"), "--config", str(self._config)]
        self.steps_clock = steps_clock
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if steps_clock:
            environment |= {"LD_PRELOAD": str(LIBFAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self._clock)}
            environment |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        running = threading.Event()
        threading.Thread(target=self._read, args=(self._child, running), daemon=True).start()
        if not running.wait(STOP_WITHIN_S) or self._child.poll() is not None:
            raise RuntimeError(f"the station does not run: {list(self.output)}")

    @property
    def pid(self) -> int:
        return self._child.pid

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        self._child.terminate()
        self._child.wait(STOP_WITHIN_S)

    def fill_disk(self, is_full: bool) -> None:
        """No file of its own grows any more: a write beyond the first byte fails."""
        _, hard = resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._child.pid, resource.RLIMIT_FSIZE, (1 if is_full else hard, hard))

    def step_clock(self, offset_s: int) -> None:
        """Of its wall clock against this machine's; without libfaketime nothing."""
        self._clock.write_text(f"{offset_s:+d}\n")

    def spoil_outbox(self) -> None:
        """Byte 18 of the file says that nobody may write to it."""
        with self.outbox.open("r+b") as file:
            file.seek(18)
            file.write(b"\x03")

    def _read(self, child: subprocess.Popen[bytes], running: threading.Event) -> None:
        assert child.stdout is not None
        with child.stdout as lines:
            for line in lines:
                self.output.append(line.decode(errors="replace").rstrip())
                if b" runs, model " in line:
                    running.set()
        running.set()  # it ended: nothing to wait for


class Belt:
    """Sends a run's parts at a pace from a thread, and then its end."""

    def __init__(self, port: int, run: str, parts: int, rate_hz: float | None) -> None:
        """Without a rate as fast as the station takes them."""
        self.sent = 0
        self.is_blind = False  # the camera is unplugged: triggers come without frames
        self.t_ns: list[int] = []  # when each part was at the light barrier
        self._run, self._parts, self._rate_hz = run, parts, rate_hz
        self._limit = parts  # how many may come for now
        self._clock = clock_id()
        self._socket: Socket = open_socket(
            "PUSH",
            f"tcp://{LOOPBACK}:{port}",
            bind=False,
            high_water_mark=2,
            linger_ms=SEND_WITHIN_MS,
            timeout_ms=SEND_WITHIN_MS,
        )
        self._thread = threading.Thread(target=self._send_all, name="belt", daemon=True)
        self._thread.start()

    def wait_for(self, part: int) -> None:
        while self.sent < part and self._thread.is_alive():
            time.sleep(0.005)

    @contextlib.contextmanager
    def metered(self) -> Iterator[Callable[[int], None]]:
        """Hold the parts that are still to come; what this gives lets so many of them come, and waits until they are
        sent."""

        def let_come(parts: int) -> None:
            self._limit = min(self._parts, self.sent + parts)
            self.wait_for(self._limit)

        self._limit = self.sent + 1  # one may be under way
        try:
            yield let_come
        finally:
            self._limit = self._parts

    def finish(self) -> None:
        """Send the end of the run once more, for a station that was killed with the first: it tells how many parts."""
        self._thread.join()
        self._socket.send_multipart(encode_message(EndOfRun(self._run, self._parts)))
        self._socket.close()

    def _send_all(self) -> None:
        for number in range(self._parts):
            while number >= self._limit:
                time.sleep(0.005)
            if self._rate_hz:
                time.sleep(1 / self._rate_hz)
            self.t_ns.append(time.monotonic_ns())
            trigger = Trigger(self._run, number, self.t_ns[-1], self._clock)
            blind = self.is_blind
            self._socket.send_multipart(
                encode_message(trigger) if blind else encode_raw_frame(trigger, grey_frame(40, FRAME_PX), {})
            )
            self.sent = number + 1
