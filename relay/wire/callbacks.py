"""What Twilio tells us about a call by webhook, read from its forms into values.

Knows no trio, no clock, no socket and no log, and not whether a form is genuine: that was checked before.

Field names are those of Twilio's voice webhooks; Twilio sends what does not apply blank or not at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from relay.outcomes import WireError
from relay.wire.signature import Form

_SID = re.compile(r"[A-Z]{2}[0-9a-fA-F]{32}")
_NUMBER = re.compile(r"[0-9]{1,9}")

_Word = TypeVar("_Word", bound=StrEnum)


class CarrierStatus(StrEnum):
    """`CallStatus` of callbacks and of the REST API; `initiated` exists in callbacks only."""

    QUEUED = "queued"
    INITIATED = "initiated"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    CANCELED = "canceled"

    @property
    def rank(self) -> int:
        """Callbacks may overtake one another: only what has a higher rank than what is known is news."""
        return _RANKS.get(self, len(_RANKS))

    @property
    def is_terminal(self) -> bool:
        """The carrier has nothing more to do for this call."""
        return self not in _RANKS


_RANKS = {
    status: rank
    for rank, status in enumerate(
        (CarrierStatus.QUEUED, CarrierStatus.INITIATED, CarrierStatus.RINGING, CarrierStatus.IN_PROGRESS)
    )
}


class AnsweredBy(StrEnum):
    """The verdict of the answering-machine detection; a word that is new to us is `unknown`."""

    HUMAN = "human"
    FAX = "fax"
    UNKNOWN = "unknown"
    MACHINE_START = "machine_start"
    MACHINE_END_BEEP = "machine_end_beep"
    MACHINE_END_SILENCE = "machine_end_silence"
    MACHINE_END_OTHER = "machine_end_other"

    @property
    def is_machine(self) -> bool:
        """Nobody is listening; `unknown` is not a machine."""
        return self not in (AnsweredBy.HUMAN, AnsweredBy.UNKNOWN)

    @classmethod
    def _missing_(cls, value: object) -> AnsweredBy:
        return cls.UNKNOWN


class StreamEvent(StrEnum):
    """`StreamEvent`: what happened to the media stream."""

    STARTED = "stream-started"
    STOPPED = "stream-stopped"
    ERROR = "stream-error"


class RecordingStatus(StrEnum):
    """`RecordingStatus`: what became of a recording."""

    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    ABSENT = "absent"
    FAILED = "failed"


class DialOutcome(StrEnum):
    """`DialCallStatus`: what became of the other leg of a `<Dial>`; a word that is new to us is `failed`."""

    COMPLETED = "completed"
    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_answered(self) -> bool:
        """Somebody has talked to the person."""
        return self in (DialOutcome.COMPLETED, DialOutcome.ANSWERED)

    @classmethod
    def _missing_(cls, value: object) -> DialOutcome:
        return cls.FAILED


@dataclass(frozen=True, slots=True)
class DialCallback:
    """A `<Dial>` is over; `is_over`: the call itself is, so that nothing can follow.

    `talked_seconds` are the other leg's, where somebody has answered it.
    """

    call_sid: str
    outcome: DialOutcome
    is_over: bool
    talked_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class StatusCallback:
    """How far the call has come; `sequence` counts from 0, `duration_seconds` comes at the end."""

    call_sid: str
    status: CarrierStatus
    sequence: int | None = None
    answered_by: AnsweredBy | None = None
    duration_seconds: int | None = None
    sip_response_code: int | None = None
    error_code: int | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class StreamCallback:
    """What happened to the media stream; `error` is Twilio's sentence."""

    call_sid: str
    event: StreamEvent
    stream_sid: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RecordingCallback:
    """What became of the recording; fetching `url` takes the account's credentials."""

    call_sid: str
    recording_sid: str
    status: RecordingStatus
    url: str | None = None
    duration_seconds: int | None = None
    channels: int | None = None
    error_code: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What is kept of it: a reference, and no address that anybody could be sent to."""
        told = {"seconds": self.duration_seconds, "error_code": self.error_code}
        known = {name: value for name, value in told.items() if value is not None}
        return {"recording_sid": self.recording_sid, "status": self.status.value, **known}


@dataclass(frozen=True, slots=True)
class AmdCallback:
    """Who or what answered, and how long the detection took."""

    call_sid: str
    answered_by: AnsweredBy
    detection_seconds: float | None = None


def read_sid(prefix: str, text: str) -> str:
    """`text` when it is a SID of that kind: two letters (CA, MZ, AC, RE) and 32 hexadecimal digits."""
    if _SID.fullmatch(text) and text.startswith(prefix):
        return text
    raise WireError(f"not a SID that begins with {prefix}")


def read_call_sid(form: Form) -> str:
    """The call that any voice request is about, the fetch of a document included."""
    return read_sid("CA", _Fields(form).required("CallSid"))


def read_status(form: Form) -> StatusCallback:
    """The call status callback. Only the call and its status must be readable, the rest is best effort."""
    fields = _Fields(form)
    answered_by = fields.text("AnsweredBy")
    return StatusCallback(
        call_sid=read_call_sid(form),
        status=fields.word(CarrierStatus, "CallStatus"),
        sequence=fields.number("SequenceNumber"),
        answered_by=None if answered_by is None else AnsweredBy(answered_by),
        duration_seconds=fields.number("CallDuration"),
        sip_response_code=fields.number("SipResponseCode"),
        error_code=fields.number("ErrorCode"),
        error_message=fields.text("ErrorMessage"),
    )


def read_stream(form: Form) -> StreamCallback:
    """The status callback of `<Stream>`."""
    fields = _Fields(form)
    stream_sid = fields.text("StreamSid")
    return StreamCallback(
        call_sid=read_call_sid(form),
        event=fields.word(StreamEvent, "StreamEvent"),
        stream_sid=None if stream_sid is None else read_sid("MZ", stream_sid),
        error=fields.text("StreamError"),
    )


def read_recording(form: Form) -> RecordingCallback:
    """The recording status callback."""
    fields = _Fields(form)
    return RecordingCallback(
        call_sid=read_call_sid(form),
        recording_sid=read_sid("RE", fields.required("RecordingSid")),
        status=fields.word(RecordingStatus, "RecordingStatus"),
        url=fields.text("RecordingUrl"),
        duration_seconds=fields.number("RecordingDuration"),
        channels=fields.number("RecordingChannels"),
        error_code=fields.number("ErrorCode"),
    )


def read_digits(form: Form) -> str:
    """What was pressed during a `<Gather>`."""
    return _Fields(form).required("Digits")


def read_dial(form: Form) -> DialCallback:
    """The request of a `<Dial>` to its `action`."""
    fields = _Fields(form)
    status = fields.text("CallStatus")
    is_over = status in {each.value for each in CarrierStatus if each.is_terminal}
    outcome, talked_seconds = fields.required("DialCallStatus"), fields.number("DialCallDuration")
    return DialCallback(read_call_sid(form), DialOutcome(outcome), is_over, talked_seconds)


def read_callee(form: Form) -> str:
    """The number that was called, as any voice request of an outbound call names it."""
    return _Fields(form).required("To")


def read_amd(form: Form) -> AmdCallback:
    """The callback of asynchronous answering-machine detection."""
    fields = _Fields(form)
    milliseconds = fields.number("MachineDetectionDuration")
    return AmdCallback(
        call_sid=read_call_sid(form),
        answered_by=AnsweredBy(fields.required("AnsweredBy")),
        detection_seconds=None if milliseconds is None else milliseconds / 1000,
    )


class _Fields:
    """A form by name; a blank value counts as absent."""

    def __init__(self, form: Form) -> None:
        self._values = {name: value for name, value in form if value}

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise WireError(f"the form has no {name}")
        return value

    def number(self, name: str) -> int | None:
        value = self.text(name)
        return int(value) if value is not None and _NUMBER.fullmatch(value) else None

    def word(self, words: type[_Word], name: str) -> _Word:
        value = self.required(name)
        try:
            return words(value)
        except ValueError as error:
            raise WireError(f"the form has an unknown {name}") from error
