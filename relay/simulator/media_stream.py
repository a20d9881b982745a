"""The messages of a Media Stream: what the carrier writes, and a strict reading of what it is sent.

Knows neither sockets nor clocks, and nothing of how audio is played.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONNECTED = '{"event":"connected","protocol":"Call","version":"1.0.0"}'


@dataclass(frozen=True, slots=True)
class PlayAudio:
    """`media` from the service: μ-law to be queued. `payload` is the base64 text as it came."""

    payload: str
    audio: bytes


@dataclass(frozen=True, slots=True)
class PlaceMark:
    """`mark` from the service."""

    name: str


@dataclass(frozen=True, slots=True)
class ClearAudio:
    """`clear` from the service."""


Order = PlayAudio | PlaceMark | ClearAudio


class Unreadable(Exception):
    """A message that breaks the protocol; Twilio warns with 31950 or 31951 and ignores it."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(f"{sentence} ({code})")
        self.code = code


# Besides `event` and `streamSid`, each order has exactly one member (or none) with exactly one field.
_CONTENT = {"media": "payload", "mark": "name", "clear": None}


def read_order(message: str | bytes, stream_sid: str) -> Order:
    """Read one message of the service. Raises Unreadable on anything but the three exact shapes."""
    if isinstance(message, bytes):
        raise Unreadable(31950, "a binary frame")
    try:
        decoded = json.loads(message)
    except ValueError:
        raise Unreadable(31951, "text that is not JSON") from None
    event = decoded.get("event") if isinstance(decoded, dict) else None
    if not isinstance(event, str) or event not in _CONTENT:
        raise Unreadable(31951, f"unknown event {str(event)[:40]!r}")
    if decoded.get("streamSid") != stream_sid:
        raise Unreadable(31951, f"{event} for a foreign streamSid")
    field = _CONTENT[event]
    if field is None:
        _check_keys(event, decoded, {"event", "streamSid"})
        return ClearAudio()
    _check_keys(event, decoded, {"event", "streamSid", event})
    content = decoded[event]
    if not isinstance(content, dict):
        raise Unreadable(31951, f"{event}.{event} is not an object")
    _check_keys(f"{event}.{event}", content, {field})
    value = content[field]
    if not isinstance(value, str) or not value:
        raise Unreadable(31951, f"{event}.{field} is not a text")
    return _read_audio(value) if event == "media" else PlaceMark(value)


def _check_keys(place: str, decoded: Mapping[str, Any], wanted: set[str]) -> None:
    if set(decoded) != wanted:
        odd = ", ".join(sorted(set(decoded) ^ wanted))
        raise Unreadable(31951, f"{place} with a missing or extra field: {odd[:80]}")


def _read_audio(payload: str) -> PlayAudio:
    try:
        audio = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable(31951, "media.payload is not base64") from None
    if audio.startswith(b"RIFF"):
        raise Unreadable(31951, "media.payload is a WAV file, not bare μ-law")
    return PlayAudio(payload, audio)


class StreamWriter:
    """Writes one stream's messages; counters are texts on the wire, `sequenceNumber` counts all messages."""

    def __init__(
        self, account_sid: str, call_sid: str, stream_sid: str, parameters: Mapping[str, str]
    ) -> None:
        self.stream_sid = stream_sid
        self._account_sid, self._call_sid, self._parameters = account_sid, call_sid, parameters
        self._sequence = 0
        self._chunk = 0

    def start(self, stream_sid: str | None = None) -> str:
        """The second message of a stream, with the `<Parameter>`s of the document."""
        details = {
            "accountSid": self._account_sid,
            "streamSid": stream_sid or self.stream_sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(self._parameters),
        }
        return self._write("start", details)

    def media(self, payload: str, timestamp_ms: int) -> str:
        """20 ms of the callee's audio; `timestamp_ms` counts from the stream's start."""
        self._chunk += 1
        return self._write(
            "media",
            {
                "track": "inbound",
                "chunk": str(self._chunk),
                "timestamp": str(timestamp_ms),
                "payload": payload,
            },
        )

    def mark(self, name: str) -> str:
        """The echo of a mark: played, or dropped by a `clear`."""
        return self._write("mark", {"name": name})

    def dtmf(self, digit: str) -> str:
        """A key of the callee's telephone. (`inbound_track` here, `inbound` in media: the vendor's quirk.)"""
        return self._write("dtmf", {"track": "inbound_track", "digit": digit})

    def stop(self) -> str:
        """The last message before the carrier closes the socket."""
        return self._write("stop", {"accountSid": self._account_sid, "callSid": self._call_sid})

    def _write(self, event: str, content: Mapping[str, Any]) -> str:
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            event: content,
            "streamSid": self.stream_sid,
        }
        return json.dumps(message, separators=(",", ":"))
