"""A strict reading of the documents that tell the carrier what to do with a call.

Knows neither the network nor calls: a document becomes verbs and a list of what is wrong with it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # the documents come from the service under our own roof
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# name + value of a <Parameter>
PARAMETER_CHARACTERS = 500

_E164 = re.compile(r"\+[1-9]\d{6,14}")


@dataclass(frozen=True, slots=True)
class ConnectStream:
    """`<Connect><Stream>`: blocks until the stream ends. `url` is without its query: the carrier drops it."""

    url: str
    parameters: dict[str, str] = field(default_factory=dict)
    name: str = ""
    status_callback: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go on with the document at `url`; nothing after it is reached."""

    url: str


@dataclass(frozen=True, slots=True)
class Say:
    """Speak a sentence with a synthetic voice."""

    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait in silence."""

    length_seconds: int


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the call."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Wait for keys, from the first word of what is said until `timeout_seconds` after the last.

    `action` is None for the address of the document itself. A key that finishes is no digit.
    """

    action: str | None
    digits: int | None
    finish_on_key: str
    timeout_seconds: int
    action_on_empty_result: bool
    prompts: tuple[Say | Pause, ...] = ()


@dataclass(frozen=True, slots=True)
class Dial:
    """Ring `number`, and let both talk; the document at `action` follows, whatever comes of it."""

    number: str
    caller_id: str
    timeout_seconds: int
    action: str


Verb = ConnectStream | Redirect | Say | Pause | Gather | Dial | Hangup


class BadDocument(Exception):
    """A document that the carrier cannot execute at all; `code` is the carrier's own."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


_ATTRIBUTES = {
    "Response": set[str](),
    "Connect": {"action", "method"},
    "Stream": {"url", "name", "track", "statusCallback", "statusCallbackMethod"},
    "Parameter": {"name", "value"},
    "Redirect": {"method"},
    "Say": {"voice", "language", "loop"},
    # Speech is not emulated, nor what belongs to it.
    "Gather": {"action", "actionOnEmptyResult", "finishOnKey", "input", "method", "numDigits", "timeout"},
    "Pause": {"length"},
    "Dial": {"action", "answerOnBridge", "callerId", "method", "timeLimit", "timeout"},
    "Number": set[str](),
    "Hangup": set[str](),
}


def read_document(content_type: str, body: str) -> tuple[list[Verb], list[str]]:
    """The verbs in order, and what the carrier would warn about. Raises BadDocument (12100, 12102, 12300)."""
    if content_type.partition(";")[0].strip().lower() not in ("text/xml", "application/xml"):
        raise BadDocument(12300, f"content type {content_type!r} is not XML")
    try:
        root = ET.fromstring(body)  # noqa: S314 - see the import
    except ET.ParseError as error:
        raise BadDocument(12100, f"the document is not XML: {error}") from None
    if root.tag != "Response":
        raise BadDocument(12102, f"the root is <{root.tag}>, not <Response>")
    warnings: list[str] = []
    _check_attributes(root, warnings)
    verbs = [verb for element in root if (verb := _read_verb(element, warnings)) is not None]
    return verbs, warnings


def _read_verb(element: ET.Element, warnings: list[str]) -> Verb | None:
    _check_attributes(element, warnings)
    text = (element.text or "").strip()
    match element.tag:
        case "Connect":
            return _read_connect(element, warnings)
        case "Redirect":
            return Redirect(text)
        case "Say":
            return Say(text)
        case "Pause":
            return Pause(_read_number(element, "length", 1, warnings))
        case "Gather":
            return _read_gather(element, warnings)
        case "Dial":
            return _read_dial(element, warnings)
        case "Hangup":
            return Hangup()
    warnings.append(f"unknown verb <{element.tag}>")
    return None


def _read_gather(gather: ET.Element, warnings: list[str]) -> Gather:
    for name, known in (
        ("input", ("dtmf",)),
        ("method", ("POST",)),
        ("actionOnEmptyResult", ("true", "false")),
    ):
        if gather.get(name, known[0]) not in known:
            warnings.append(f"<Gather {name}={gather.get(name)!r}> is not {' or '.join(known)}")
    finish_on_key = gather.get("finishOnKey", "#")
    if len(finish_on_key) > 1 or finish_on_key not in "0123456789#*":
        warnings.append(f"<Gather finishOnKey={finish_on_key!r}> is no key")
    prompts = []
    for element in gather:
        prompt = _read_verb(element, warnings) if element.tag in ("Say", "Pause") else None
        if isinstance(prompt, Say | Pause):
            prompts.append(prompt)
        else:
            warnings.append(f"<{element.tag}> in <Gather>")
    return Gather(
        action=gather.get("action"),
        digits=_read_number(gather, "numDigits", 1, warnings) if "numDigits" in gather.attrib else None,
        finish_on_key=finish_on_key,
        timeout_seconds=_read_number(gather, "timeout", 5, warnings),
        action_on_empty_result=gather.get("actionOnEmptyResult") == "true",
        prompts=tuple(prompts),
    )


def _read_dial(dial: ET.Element, warnings: list[str]) -> Dial:
    numbers = dial.findall("Number")
    if len(dial) != len(numbers) or len(numbers) > 1:
        warnings.append("<Dial> is emulated with one <Number> at most, and nothing else")
    for number in numbers:
        _check_attributes(number, warnings)
    to = ((numbers[0].text if numbers else dial.text) or "").strip()
    for text, what in ((to, "number (13223)"), (dial.get("callerId", ""), "callerId (13214)")):
        if not _E164.fullmatch(text):
            warnings.append(f"<Dial> has no {what} in E.164: {text!r}")
    action = dial.get("action", "")
    if not urlsplit(action).hostname:
        warnings.append(f"<Dial action={action!r}> is not absolute, and nothing else is emulated")
    if dial.get("method", "POST") != "POST":
        warnings.append(f"<Dial method={dial.get('method')!r}> is not POST")
    return Dial(to, dial.get("callerId", ""), _read_number(dial, "timeout", 30, warnings), action)


def _read_number(element: ET.Element, name: str, default: int, warnings: list[str]) -> int:
    text = element.get(name, str(default))
    if not text.isdecimal() or int(text) == 0:
        warnings.append(f"<{element.tag} {name}={text!r}> is no positive number")
        return default
    return int(text)


def _read_connect(connect: ET.Element, warnings: list[str]) -> ConnectStream | None:
    streams = connect.findall("Stream")
    if len(streams) != 1 or len(connect) != 1:
        warnings.append("<Connect> wants exactly one <Stream>")
        return None
    stream = streams[0]
    _check_attributes(stream, warnings)
    url, query_mark, _ = stream.get("url", "").partition("?")
    if query_mark:
        warnings.append("the query of <Stream url> is dropped by the carrier")
    if fault := _scheme_fault(url):
        warnings.append(fault)
    if stream.get("track", "inbound_track") != "inbound_track":
        warnings.append("<Connect><Stream> knows the inbound_track only (31941)")
    parameters: dict[str, str] = {}
    for parameter in stream:
        if parameter.tag != "Parameter":
            warnings.append(f"unknown noun <{parameter.tag}> in <Stream>")
            continue
        _check_attributes(parameter, warnings)
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if not name or len(name) + len(value) > PARAMETER_CHARACTERS:
            warnings.append(
                f"<Parameter {name[:40]!r}> without a name, or longer than {PARAMETER_CHARACTERS}"
            )
        parameters[name] = value
    return ConnectStream(url, parameters, stream.get("name", ""), stream.get("statusCallback"))


def _scheme_fault(url: str) -> str:
    address = urlsplit(url)
    on_loopback = address.hostname in ("localhost", "::1") or (address.hostname or "").startswith("127.")
    if address.scheme == "wss" or (address.scheme == "ws" and on_loopback):
        return ""
    return f"the stream's scheme is {address.scheme!r}, not wss (31922)"


def _check_attributes(element: ET.Element, warnings: list[str]) -> None:
    for name in sorted(set(element.attrib) - _ATTRIBUTES.get(element.tag, set(element.attrib))):
        warnings.append(f"<{element.tag}> has no attribute {name!r}")
