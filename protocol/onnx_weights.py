"""Whether an ONNX file holds all its weights itself.

A tensor may name another file instead ("external data"). Which file that is depends on the folder of whoever loads the
model, so that no digest and no signature says what the network then computes. Such files are refused everywhere.
"""

from __future__ import annotations

from protocol.protobuf import fields

MAX_DEPTH = 32  # graphs in attributes of nodes of graphs …
MAX_FIELDS = 1_000_000  # about a second's work; an exported model has thousands
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of onnx.proto's TensorProto
# Which fields of a message lead to tensors, by their numbers in onnx.proto.
LEADS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_AGAIN = "export the model again, with its weights inside"


def weights_fault(content: bytes) -> str:
    """Why the file is not to be loaded, to follow its name; empty if all its weights are inside."""
    waiting: list[tuple[str, memoryview, int]] = [("model", memoryview(content), 0)]
    seen = 0
    try:
        while waiting:
            kind, message, depth = waiting.pop()
            if depth > MAX_DEPTH:
                return f"has graphs that are nested too deeply: {_AGAIN}"
            for number, value in fields(message):
                seen += 1
                if seen > MAX_FIELDS:
                    return f"has more than {MAX_FIELDS} fields: {_AGAIN}"
                if kind == "tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and value)):
                    return f"takes weights from another file (external data): {_AGAIN}"
                if number in LEADS[kind] and isinstance(value, memoryview):
                    waiting.append((LEADS[kind][number], value, depth + 1))
    except (ValueError, IndexError) as error:
        return f"is no ONNX file ({error}): {_AGAIN}"
    return ""
