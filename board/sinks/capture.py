"""Captures: the next parts that are OK, recorded in a folder of their own, to train on or to look at."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from board.sinks.recorder import RecorderSettings, RecorderSink
from protocol.commands import Capture
from protocol.errors import InputError, MessageError
from protocol.messages import Frame, Verdict

FOLDER = "captures"


class CaptureSink:
    """Below the recorder's folder, one folder a capture, which has the command's id as its name."""

    def __init__(self, settings: RecorderSettings) -> None:
        self._settings = settings
        self._recorder: RecorderSink | None = None
        self.parts_left = 0

    def begin(self, order: Capture) -> None:
        """Raises: MessageError if one is under way, or there is no room."""
        if self._recorder:
            raise MessageError(f"a capture is under way, {self.parts_left} parts are left: wait for its end")
        folder = self._settings.folder / FOLDER / order.id
        try:
            self._recorder = RecorderSink(replace(self._settings, keep="everything", folder=folder))
        except InputError as error:
            raise MessageError(str(error)) from None
        self.parts_left = order.parts

    def publish(self, frame: Frame, verdict: Verdict, anomaly: NDArray[np.int8] | None) -> None:
        if self._recorder is None or verdict.decision != "OK":
            return
        self._recorder.publish(frame, verdict, anomaly)
        self.parts_left -= 1
        if self.parts_left == 0:
            # the end of a recording waits for the disk: not on the line's time
            threading.Thread(target=self._recorder.close, name="end-capture").start()
            self._recorder = None

    def close(self) -> None:
        if self._recorder:
            self._recorder.close()
            self._recorder = None
