"""The documents that Twilio asks for, and the addresses that it is given.

Knows no trio, no clock, no socket and no log, and not why a call ended: it is told what to say.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from urllib.parse import urlencode

TWIML_PATH = "/twiml"
STREAM_PATH = "/twilio-stream"
STATUS_PATH = "/twilio/status"
STREAM_STATUS_PATH = "/twilio/stream"
AMD_PATH = "/twilio/amd"
RECORDING_PATH = "/twilio/recording"
KEY_PATH = "/twilio/key"
TRANSFER_PATH = "/twilio/transfer"

TOKEN_PARAMETER = "token"  # noqa: S105 - the name under which `start.customParameters` returns it

# For a key after the last word, before the next verb: Twilio counts it from the end of what is said. Whole
# seconds, and the person hears nothing meanwhile.
KEY_SECONDS = 1

# Characters that no XML 1.0 document may hold, not even escaped; Twilio rejects the document (12100).
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Announcement:
    """A sentence that Twilio speaks before it connects the stream; a key pressed meanwhile is posted."""

    sentence: str
    key_url: str
    language: str = "en-US"


def connect_stream(
    *,
    stream_url: str,
    token: str,
    status_callback: str,
    redirect: str,
    announcement: Announcement | None = None,
) -> str:
    """The document of an answered call: the media stream, and where to go once the stream is over.

    `<Connect>` blocks until the stream ends; when we close the socket Twilio goes on with `<Redirect>`.
    The token travels as a `<Parameter>` because Twilio drops the query of a stream's URL.
    """
    return _document(
        f"{_gather(announcement) if announcement else ''}"
        "<Connect>"
        f'<Stream url="{_xml(stream_url)}"'
        f' statusCallback="{_xml(status_callback)}" statusCallbackMethod="POST">'
        f'<Parameter name="{TOKEN_PARAMETER}" value="{_xml(token)}"/>'
        "</Stream>"
        "</Connect>"
        f'<Redirect method="POST">{_xml(redirect)}</Redirect>'
    )


def hangup() -> str:
    """The document that ends the call without a word."""
    return _document("<Hangup/>")


def say_and_hangup(sentence: str, *, language: str = "en-US") -> str:
    """The document that speaks one sentence with Twilio's own voice and ends the call."""
    return _document(f'<Say language="{_xml(language)}">{_xml(sentence)}</Say><Hangup/>')


def dial(number: str, *, caller_id: str, ring_seconds: int, action: str) -> str:
    """The document that puts the person through to `number`; what became of it is posted to `action`.

    Whatever follows is that answer's: nothing behind `<Dial action>` is reached. The call's own time limit
    goes on.
    """
    return _document(
        f'<Dial callerId="{_xml(caller_id)}" timeout="{ring_seconds}" action="{_xml(action)}" method="POST">'
        f"<Number>{_xml(number)}</Number>"
        "</Dial>"
    )


def stream_url(public_url: str) -> str:
    """Where the media stream connects: `https` becomes `wss`, `http` becomes `ws`; never with a query."""
    return f"ws{public_url.removeprefix('http').rstrip('/')}{STREAM_PATH}"


def twiml_url(public_url: str, call_id: str, attempt: int = 0) -> str:
    """Where Twilio fetches the call's document; attempt 1 and above are the documents after the stream."""
    return _call_url(public_url, TWIML_PATH, call_id, attempt)


def status_url(public_url: str, call_id: str) -> str:
    """Where the progress of the call is reported."""
    return _call_url(public_url, STATUS_PATH, call_id)


def stream_status_url(public_url: str, call_id: str, attempt: int = 0) -> str:
    """Where the start, the stop and the errors of the media stream are reported."""
    return _call_url(public_url, STREAM_STATUS_PATH, call_id, attempt)


def amd_url(public_url: str, call_id: str) -> str:
    """Where the verdict of the answering-machine detection is reported."""
    return _call_url(public_url, AMD_PATH, call_id)


def recording_url(public_url: str, call_id: str) -> str:
    """Where the finished recording is reported."""
    return _call_url(public_url, RECORDING_PATH, call_id)


def key_url(public_url: str, call_id: str, times_said: int) -> str:
    """Where a key is posted that stops the announcement; `times_said` counts from 1."""
    return f"{_call_url(public_url, KEY_PATH, call_id)}&{urlencode({'said': times_said})}"


def transfer_url(public_url: str, call_id: str, attempt: int) -> str:
    """Where it is told what became of a transfer; `attempt` is the stream that follows where it failed."""
    return _call_url(public_url, TRANSFER_PATH, call_id, attempt)


def _call_url(public_url: str, path: str, call_id: str, attempt: int = 0) -> str:
    query = {"call": call_id} | ({"attempt": str(attempt)} if attempt else {})
    return f"{public_url.rstrip('/')}{path}?{urlencode(query)}"


def _gather(announcement: Announcement) -> str:
    """The sentence, until it is over or a key stops it: the key is posted, and its answer is what follows.

    Twilio reaches what stands behind `<Gather>` only where no key was pressed. Whatever comes of that proves
    that the sentence was spoken to its end. `finishOnKey` is empty for this: by default `#` is no digit, but
    stops the sentence and goes on.
    """
    return (
        f'<Gather input="dtmf" numDigits="1" finishOnKey="" timeout="{KEY_SECONDS}"'
        f' action="{_xml(announcement.key_url)}" method="POST">'
        f'<Say language="{_xml(announcement.language)}">{_xml(announcement.sentence)}</Say>'
        "</Gather>"
    )


def _document(verbs: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{verbs}</Response>'


def _xml(text: str) -> str:
    return html.escape(_NOT_XML.sub("", text))
