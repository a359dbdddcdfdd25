"""Sparkplug B payloads: the protobuf message of the specification's section 6.4, as far as an edge node needs it.

Fields of templates, data sets and property sets are left out of the description: what a host application sends of them
stays unread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from protocol.errors import MessageError

MAX_PAYLOAD_BYTES = 1 << 16
MAX_METRICS = 256  # of a command; a line has a few that can be written
Value = bool | int | float | str | None


class DataType(IntEnum):
    """Those that our metrics have, with the specification's numbers (6.4.16)."""

    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12


_FIELDS = {
    DataType.INT64: "long_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
}


@dataclass(frozen=True)
class Metric:
    name: str
    datatype: DataType
    value: Value  # None: sent as null
    timestamp_ms: int  # UTC, since 1970
    alias: int | None = None
    is_historical: bool = False


@dataclass(frozen=True)
class Written:
    """A metric of a command, named by its name or by its alias."""

    name: str
    alias: int | None
    value: Value


def encode_birth(metrics: Iterable[Metric], timestamp_ms: int | None, seq: int | None) -> bytes:
    """With names, aliases and data types; also for NDEATH, which has neither sequence number nor time."""
    payload = _new_payload(timestamp_ms, seq)
    for metric in metrics:
        one = _add(payload, metric)
        one.name = metric.name
        one.datatype = int(metric.datatype)
    return bytes(payload.SerializeToString())


def encode_data(metrics: Iterable[Metric], timestamp_ms: int, seq: int, *, names: bool = False) -> bytes:
    """With aliases, which a birth has explained; also for DDEATH, which has no metrics.

    The data types, which a birth has explained, too, are for hosts that read each message by itself: without them
    Eclipse Tahu's sparkplug-payload gives null for every value. `names` is for hosts that know no aliases.
    """
    payload = _new_payload(timestamp_ms, seq)
    for metric in metrics:
        one = _add(payload, metric)
        one.datatype = int(metric.datatype)
        if names:
            one.name = metric.name
    return bytes(payload.SerializeToString())


def decode_command(data: bytes) -> list[Written]:
    """Raises: MessageError for bytes that are no payload, or too many."""
    if len(data) > MAX_PAYLOAD_BYTES:
        raise MessageError(f"Sparkplug payload of {len(data)} bytes; at most {MAX_PAYLOAD_BYTES} are read")
    try:
        payload = _PAYLOAD.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise MessageError(f"no Sparkplug payload ({error}): send protobuf of namespace spBv1.0") from None
    if len(payload.metrics) > MAX_METRICS:
        raise MessageError(f"command of {len(payload.metrics)} metrics; at most {MAX_METRICS} are read")
    return [_read(metric) for metric in payload.metrics]


def _new_payload(timestamp_ms: int | None, seq: int | None) -> Any:
    payload = _PAYLOAD()
    if timestamp_ms is not None:
        payload.timestamp = timestamp_ms
    if seq is not None:
        payload.seq = seq
    return payload


def _add(payload: Any, metric: Metric) -> Any:
    one = payload.metrics.add()
    if metric.alias is not None:
        one.alias = metric.alias
    one.timestamp = metric.timestamp_ms
    if metric.is_historical:
        one.is_historical = True
    if metric.value is None:
        one.is_null = True
    elif metric.datatype == DataType.INT64:
        one.long_value = int(metric.value) & (2**64 - 1)  # two's complement, as 6.4.16 has it
    elif isinstance(metric.value, str):
        one.string_value = metric.value.encode(errors="replace").decode()  # JSON may bring half of a surrogate pair
    else:
        setattr(one, _FIELDS[metric.datatype], metric.value)
    return one


def _read(metric: Any) -> Written:
    field = metric.WhichOneof("value")
    value = getattr(metric, field) if field else None
    alias = int(metric.alias) if metric.HasField("alias") else None
    return Written(metric.name, alias, value if isinstance(value, bool | int | float | str) else None)


# Numbers and types of the specification's table (6.4.1); field names are ours to choose, the wire has none.
_Field = descriptor_pb2.FieldDescriptorProto
_METRIC_FIELDS = (
    ("name", 1, _Field.TYPE_STRING),
    ("alias", 2, _Field.TYPE_UINT64),
    ("timestamp", 3, _Field.TYPE_UINT64),
    ("datatype", 4, _Field.TYPE_UINT32),
    ("is_historical", 5, _Field.TYPE_BOOL),
    ("is_null", 7, _Field.TYPE_BOOL),
)
_METRIC_VALUES = (
    ("int_value", 10, _Field.TYPE_UINT32),
    ("long_value", 11, _Field.TYPE_UINT64),
    ("float_value", 12, _Field.TYPE_FLOAT),
    ("double_value", 13, _Field.TYPE_DOUBLE),
    ("boolean_value", 14, _Field.TYPE_BOOL),
    ("string_value", 15, _Field.TYPE_STRING),
)


def _describe() -> type[Any]:
    file = descriptor_pb2.FileDescriptorProto(name="beltsight/sparkplug.proto", package="beltsight", syntax="proto2")
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for name, number, kind in _METRIC_FIELDS:
        metric.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL)
    for name, number, kind in _METRIC_VALUES:
        metric.field.add(name=name, number=number, type=kind, label=_Field.LABEL_OPTIONAL, oneof_index=0)
    for name, number in (("timestamp", 1), ("seq", 3)):
        payload.field.add(name=name, number=number, type=_Field.TYPE_UINT64, label=_Field.LABEL_OPTIONAL)
    payload.field.add(
        name="metrics",
        number=2,
        type=_Field.TYPE_MESSAGE,
        type_name=".beltsight.Payload.Metric",
        label=_Field.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    message: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("beltsight.Payload"))
    return message


_PAYLOAD = _describe()
