"""The whole of Anomalib, for the processes that measure to share. Raises: ImportError where it is not installed."""

from host.learning.backbone import import_torchvision

import_torchvision()  # before the library does

import anomalib.models  # noqa: E402, F401
