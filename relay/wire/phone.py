"""Twilio Media Streams: text to frozen messages and back.

Knows no trio, no clock, no socket and no log; the audio stays base64 from end to end.

Source of every shape: Twilio's Media Streams pages and captured traffic. Counters such as `sequenceNumber`
are strings and not needed here, so they are left out of the structs. Twilio raises warning 31951 for any
extra key in what we send, hence the exact encoders at the end.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from relay.outcomes import WireError

# What the decoder raises: bad JSON or another shape, bad UTF-8 inside a string, deep nesting.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Message(msgspec.Struct, frozen=True, gc=False, tag_field="event", rename="camel"):
    """A message from Twilio, told apart by `event`."""


class MediaFormat(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Always `audio/x-mulaw`, 8000, 1 on the streams that we ask for."""

    encoding: str
    sample_rate: int
    channels: int

    @property
    def is_mulaw(self) -> bool:
        """Whether this is the one format the relay passes through."""
        return (self.encoding, self.sample_rate, self.channels) == ("audio/x-mulaw", 8000, 1)


class StartBody(msgspec.Struct, frozen=True, rename="camel"):
    """What `start` says of the stream; every custom parameter is a string."""

    account_sid: str
    stream_sid: str
    call_sid: str
    media_format: MediaFormat
    custom_parameters: dict[str, str] = {}


class MediaBody(msgspec.Struct, frozen=True, gc=False):
    """20 ms of μ-law, base64."""

    payload: str
    track: str = "inbound"


class MarkBody(msgspec.Struct, frozen=True, gc=False):
    """The name that we gave to a mark."""

    name: str


class DtmfBody(msgspec.Struct, frozen=True, gc=False):
    """One key of `0-9 * # A-D`."""

    digit: str


class Connected(_Message, frozen=True, tag="connected"):
    """The first message of a stream; carries no streamSid."""


class StreamStarted(_Message, frozen=True, tag="start"):
    """The second message: who is calling, and our custom parameters."""

    start: StartBody
    stream_sid: str


class Media(_Message, frozen=True, tag="media"):
    """A frame of the callee's audio."""

    media: MediaBody
    stream_sid: str


class MarkReached(_Message, frozen=True, tag="mark"):
    """Everything queued before our mark was played, or dropped by a `clear`."""

    mark: MarkBody
    stream_sid: str


class KeyPressed(_Message, frozen=True, tag="dtmf"):
    """The callee pressed a key."""

    dtmf: DtmfBody
    stream_sid: str


class StreamStopped(_Message, frozen=True, tag="stop"):
    """The stream or the call is over; Twilio closes the socket next."""

    stream_sid: str


class Unrecognised(msgspec.Struct, frozen=True):
    """An event that this version does not know: counted and ignored."""

    event: str


_Known: TypeAlias = Connected | StreamStarted | Media | MarkReached | KeyPressed | StreamStopped
PhoneMessage: TypeAlias = _Known | Unrecognised


class _Envelope(msgspec.Struct):
    event: str


_EVENTS = frozenset({"connected", "start", "media", "mark", "dtmf", "stop"})
_decoder: msgspec.json.Decoder[_Known] = msgspec.json.Decoder(_Known)
_envelope_decoder = msgspec.json.Decoder(_Envelope)


def decode(text: bytes) -> PhoneMessage:
    """Read one text message. Raises WireError where it is not what the protocol says."""
    try:
        return _decoder.decode(text)
    except _UNREADABLE as problem:
        try:
            event = _envelope_decoder.decode(text).event
        except _UNREADABLE:
            raise WireError(f"not a Media Streams message: {problem}") from None
        if event in _EVENTS:
            raise WireError(f"bad {event} message: {problem}") from None
        return Unrecognised(event)


class _OutMedia(msgspec.Struct, gc=False):
    payload: str


class _PlayMedia(msgspec.Struct, gc=False, tag_field="event", tag="media", rename="camel"):
    stream_sid: str
    media: _OutMedia


class _SendMark(msgspec.Struct, gc=False, tag_field="event", tag="mark", rename="camel"):
    stream_sid: str
    mark: MarkBody


class _Clear(msgspec.Struct, gc=False, tag_field="event", tag="clear", rename="camel"):
    stream_sid: str


_encode = msgspec.json.Encoder().encode


def media(stream_sid: str, payload: str) -> bytes:
    """Queue audio for the phone: base64 μ-law of any length."""
    return _encode(_PlayMedia(stream_sid, _OutMedia(payload)))


def mark(stream_sid: str, name: str) -> bytes:
    """Ask to be told when everything queued so far was played or dropped."""
    return _encode(_SendMark(stream_sid, MarkBody(name)))


def clear(stream_sid: str) -> bytes:
    """Empty Twilio's play-out buffer; every outstanding mark is echoed at once."""
    return _encode(_Clear(stream_sid))
