"""A lesson: the next good parts become a model, while every part is rejected and the model before stands by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board.condition import Complaint
from board.models.change import Models
from board.models.inspector import Inspector
from board.models.taught import Subject, teach, write_taught
from board.preprocess import preprocess
from board.seams import Engine, Files
from board.teaching.backbone import BACKBONE_JSON, BackboneFolder, load_folder
from protocol.commands import Answer, Teach
from protocol.errors import InputError, MessageError
from protocol.messages import Frame, rfc3339_now

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class School:
    """What a station needs to teach itself."""

    backbones: Path | None  # folder with one backbone
    find_package: Callable[[str], Path]  # where a model of this name lies, or would lie
    open_features: Callable[[Files], Engine]
    open_inspector: Callable[[str, str], Inspector]
    needs_signatures: bool

    def find_backbone(self) -> BackboneFolder:
        """Raises: InputError."""
        if self.needs_signatures:
            raise InputError("this station takes signed models alone: teach on a host, sign, and deploy")
        found = sorted(self.backbones.glob(f"*/{BACKBONE_JSON}")) if self.backbones else []
        if len(found) != 1:
            where = f"{self.backbones} has {len(found)}" if self.backbones else "[engines] backbones is not set"
            raise InputError(f"a lesson needs one backbone, {where}: make one with `beltsight backbone`, put it there")
        return load_folder(found[0].parent)


@dataclass
class _Lesson:
    order: Teach
    subject: Subject
    backbone: BackboneFolder
    first: Images | None = None  # frame
    images: list[Images] = field(default_factory=list)  # of the network's size
    is_full: bool = False


class Lessons:
    """Owned by the line's loop."""

    def __init__(self, school: School, models: Models) -> None:
        self._school, self._models = school, models
        self._lesson: _Lesson | None = None

    @property
    def fault(self) -> str:
        """Why no part may pass; empty while no lesson is under way."""
        return f"learning {self._lesson.order.model}" if self._lesson else ""

    @property
    def parts_left(self) -> int:
        return self._lesson.order.parts - len(self._lesson.images) if self._lesson else 0

    def complaint(self) -> Complaint | None:
        if not self._lesson:
            return None
        what = f"the next good parts teach {self._lesson.order.model}, and every part is rejected until it judges"
        return Complaint("stopped", f"learning: {what}")

    def begin(self, order: Teach) -> None:
        """Raises: MessageError."""
        if self._lesson:
            raise MessageError(f"{self._lesson.order.model} is being taught: wait, or end it with rollback")
        if self._models.is_changing:
            raise MessageError("another model is being taken or on trial: wait for its end")
        if self._school.find_package(order.model).exists():
            raise MessageError(f"there is a model {order.model} already: give the new one another name")
        try:
            backbone = self._school.find_backbone()
        except InputError as error:
            raise MessageError(str(error)) from None
        manifest = self._models.current.manifest
        frame_px = manifest.preprocess.frame_px
        subject = Subject(order.model, manifest.product, frame_px, backbone.manifest.input_px)
        self._lesson = _Lesson(order, subject, backbone)

    def cancel(self) -> bool:
        """Whether a lesson was ended: the model before judges again."""
        was_under_way = self._lesson is not None and not self._lesson.is_full
        if was_under_way:
            self._lesson = None
        return was_under_way

    def note(self, frame: Frame) -> Answer | None:
        """A part that went by. The answer, where the lesson fails at once."""
        lesson = self._lesson
        if not lesson or lesson.is_full or frame.image is None or frame.fault:
            return None
        if frame.image.shape[:2] != lesson.subject.frame_px:
            return None  # the camera's trouble, which the line says
        if lesson.first is None:
            lesson.first = frame.image.copy()
        lesson.images.append(preprocess(frame.image, lesson.subject.how))
        if len(lesson.images) < lesson.order.parts:
            return None
        lesson.is_full = True
        try:
            self._models.begin(lesson.order, lambda: self._finish(lesson))
        except MessageError as error:
            self._lesson = None
            return Answer(lesson.order.id, "teach", False, str(error), rfc3339_now())
        return None

    def hear(self, answer: Answer | None) -> None:
        """What became of a model that was to be taken: with this lesson's the lesson ends, well or not."""
        if self._lesson and answer and answer.id == self._lesson.order.id:
            self._lesson = None

    def _finish(self, lesson: _Lesson) -> Inspector:
        """In the thread that opens models. Raises: InputError, EngineError."""
        if lesson.first is None:
            raise InputError("no part came")
        images = np.stack(lesson.images)
        files = teach(lesson.subject, lesson.first, images, lesson.backbone, self._school.open_features)
        write_taught(self._school.find_package(lesson.order.model), files)
        return self._school.open_inspector(lesson.order.model, "")
