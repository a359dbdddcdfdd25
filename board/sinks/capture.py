"""Captures: the next parts that are OK, recorded in a folder of their own, to train on or to look at."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from board.records.recording import RECORDING_SUFFIX
from board.sinks.recorder import CLOSE_WITHIN_S, RecorderSettings, RecorderSink
from protocol.commands import Capture
from protocol.errors import InputError, MessageError
from protocol.messages import Frame, Verdict
from protocol.supervision import SUPERVISOR, Supervised, Supervisor

FOLDER = "captures"
END_WITHIN_S = 2 * CLOSE_WITHIN_S


class CaptureSink:
    """Below the recorder's folder, one folder a capture, which has the command's id as its name.

    All captures together have the recorder's `max_bytes`: nobody's captures are deleted for another's.
    """

    def __init__(self, settings: RecorderSettings, supervisor: Supervisor = SUPERVISOR) -> None:
        self._settings, self._supervisor = settings, supervisor
        self._ending: Supervised | None = None
        self._recorder: RecorderSink | None = None
        self.parts_left = 0

    def begin(self, order: Capture) -> None:
        """Raises: MessageError if one is under way, or there is no room."""
        if self._recorder:
            raise MessageError(f"a capture is under way, {self.parts_left} parts are left: wait for its end")
        folder = self._settings.folder / FOLDER / order.id
        left_bytes = self._settings.max_bytes - self._taken_bytes()
        if left_bytes < 2 * self._settings.file_bytes:
            advice = f"remove some from {folder.parent}, or raise [recorder] max_bytes"
            raise MessageError(f"captures take {self._settings.max_bytes - left_bytes >> 20} MiB: {advice}")
        settings = replace(self._settings, keep="everything", folder=folder, max_bytes=left_bytes)
        try:
            self._recorder = RecorderSink(settings, self._supervisor)
        except InputError as error:
            raise MessageError(str(error)) from None
        self.parts_left = order.parts

    def _taken_bytes(self) -> int:
        sizes = 0
        for path in (self._settings.folder / FOLDER).glob(f"*/*{RECORDING_SUFFIX}"):
            with contextlib.suppress(OSError):  # removed since it was listed
                sizes += path.stat().st_size
        return sizes

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        if self._recorder is None or verdict.decision != "OK":
            return
        self._recorder.publish(frame, verdict, anomaly)
        self.parts_left -= 1
        if self.parts_left == 0:
            # the end of a recording waits for the disk: not on the line's time
            self._ending = self._supervisor.start(
                "end of a capture",
                partial(_close, self._recorder),
                silent_s=END_WITHIN_S,
                is_needed=False,
                is_once=True,
            )
            self._recorder = None

    def close(self) -> None:
        if self._recorder:
            self._recorder.close()
            self._recorder = None
        if self._ending:
            self._ending.wait(END_WITHIN_S)


def _close(recorder: RecorderSink, _: Supervised) -> None:
    recorder.close()
