"""The parts of an ONNX file that the kernels need, read without any package: nodes and constants.

onnx.proto says which number of a field means what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.errors import EngineError
from protocol.protobuf import Message

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_CONSTANT, GRAPH_INPUT = 1, 5, 11
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR, NODE_ATTRIBUTE = 1, 2, 4, 5
ATTRIBUTE_NAME, ATTRIBUTE_INT, ATTRIBUTE_STRING, ATTRIBUTE_INTS = 1, 3, 4, 8
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
INFO_NAME, INFO_TYPE, TYPE_TENSOR, TENSOR_DIMENSIONS, DIMENSION, DIMENSION_VALUE = 1, 2, 1, 2, 1, 1
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
}

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Node:
    operator: str
    inputs: tuple[str, ...]
    output: str
    integers: dict[str, tuple[int, ...]]  # attributes
    words: dict[str, str]


@dataclass(frozen=True)
class Graph:
    nodes: tuple[Node, ...]  # in an order in which they can be computed
    constants: dict[str, Array]
    inputs: dict[str, tuple[int, ...]]  # name -> shape; 0 where a side is left open


def read_graph(content: bytes) -> Graph:
    """Raises: EngineError for anything that is no complete ONNX file."""
    try:
        graph = Message(_first(Message(memoryview(content)), MODEL_GRAPH))
        nodes = tuple(_read_node(Message(part)) for part in graph.all(GRAPH_NODE))
        constants = dict(_read_constant(Message(part)) for part in graph.all(GRAPH_CONSTANT))
        inputs = dict(_read_input(Message(part)) for part in graph.all(GRAPH_INPUT))
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise EngineError(f"the model is no ONNX file that the kernels read ({error}): export it again") from None
    return Graph(nodes, constants, inputs)


def _first(message: Message, number: int) -> memoryview:
    return message.all(number)[0]


def _read_node(node: Message) -> Node:
    attributes = [Message(part) for part in node.all(NODE_ATTRIBUTE)]
    (output,) = (bytes(part).decode() for part in node.all(NODE_OUTPUT))
    return Node(
        operator=node.text(NODE_OPERATOR),
        inputs=tuple(bytes(part).decode() for part in node.all(NODE_INPUT)),
        output=output,
        integers={one.text(ATTRIBUTE_NAME): _attribute_integers(one) for one in attributes},
        words={one.text(ATTRIBUTE_NAME): one.text(ATTRIBUTE_STRING) for one in attributes},
    )


def _attribute_integers(attribute: Message) -> tuple[int, ...]:
    return attribute.integers(ATTRIBUTE_INTS) or attribute.integers(ATTRIBUTE_INT)


def _read_constant(tensor: Message) -> tuple[str, Array]:
    """A view of the file's bytes. Raises: ValueError unless they are as many as the shape says."""
    (kind,) = tensor.integers(TENSOR_TYPE)
    raw = tensor.all(TENSOR_RAW)[-1] if tensor.all(TENSOR_RAW) else memoryview(b"")
    return tensor.text(TENSOR_NAME), np.frombuffer(raw, DTYPES[kind]).reshape(tensor.integers(TENSOR_SHAPE))


def _read_input(info: Message) -> tuple[str, tuple[int, ...]]:
    tensor = Message(_first(Message(_first(info, INFO_TYPE)), TYPE_TENSOR))
    dimensions = [Message(part) for part in Message(_first(tensor, TENSOR_DIMENSIONS)).all(DIMENSION)]
    return info.text(INFO_NAME), tuple((*one.integers(DIMENSION_VALUE), 0)[0] for one in dimensions)
