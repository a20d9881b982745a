"""The documents that Twilio asks for, and the addresses that it is given.

Knows no trio, no clock, no socket and no log, and not why a call ended: it is told what to say.
"""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode

TWIML_PATH = "/twiml"
STREAM_PATH = "/twilio-stream"
STATUS_PATH = "/twilio/status"
STREAM_STATUS_PATH = "/twilio/stream"
AMD_PATH = "/twilio/amd"
RECORDING_PATH = "/twilio/recording"

TOKEN_PARAMETER = "token"  # noqa: S105 - the name under which `start.customParameters` returns it

# Characters that no XML 1.0 document may hold, not even escaped; Twilio rejects the document (12100).
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def connect_stream(*, stream_url: str, token: str, status_callback: str, redirect: str) -> str:
    """The document of an answered call: the media stream, and where to go once the stream is over.

    `<Connect>` blocks until the stream ends; when we close the socket Twilio goes on with `<Redirect>`.
    The token travels as a `<Parameter>` because Twilio drops the query of a stream's URL.
    """
    return _document(
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


def _call_url(public_url: str, path: str, call_id: str, attempt: int = 0) -> str:
    query = {"call": call_id} | ({"attempt": str(attempt)} if attempt else {})
    return f"{public_url.rstrip('/')}{path}?{urlencode(query)}"


def _document(verbs: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{verbs}</Response>'


def _xml(text: str) -> str:
    return html.escape(_NOT_XML.sub("", text))
