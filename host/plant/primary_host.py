"""Whether the plant's primary host application is there: its retained STATE message (Sparkplug 3.0, 6.4.27 and 5.4)."""

from __future__ import annotations

from dataclasses import dataclass

from host.plant.edge_node import NAMESPACE
from protocol.messages import decode_json


@dataclass(frozen=True)
class HostState:
    online: bool
    timestamp: int  # ms since 1970; of the host's clock


class PrimaryHost:
    """Without a host id everybody is served at any time."""

    def __init__(self, host_id: str = "") -> None:
        self.topic = f"{NAMESPACE}/STATE/{host_id}" if host_id else ""
        self.is_online = not host_id
        self._latest_ms: int | None = None

    def begin_session(self) -> None:
        """Its state is heard anew in each."""
        self.is_online = not self.topic

    def note(self, topic: str, payload: bytes) -> None:
        """An older message than one before it changes nothing: last wills may come late.

        Raises: MessageError for a payload that is no STATE message of Sparkplug 3.0.
        """
        if topic != self.topic:
            return
        state = decode_json(HostState, payload)
        if self._latest_ms is not None and state.timestamp < self._latest_ms:
            return
        self._latest_ms = state.timestamp
        self.is_online = state.online
