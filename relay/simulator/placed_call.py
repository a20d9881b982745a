"""One call at the carrier, from the order to the last callback: ringing, documents, the stream, the end.

Knows nothing of the REST interface; media belong to the phone.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import trio

from relay.simulator.callee import Callee
from relay.simulator.customer import Answer, Customer, Unreachable
from relay.simulator.detection import Detection
from relay.simulator.dialling import dial
from relay.simulator.gathering import gather
from relay.simulator.http import Form
from relay.simulator.ledger import Ledger
from relay.simulator.media_stream import StreamWriter
from relay.simulator.phone import Phone
from relay.simulator.recording import CarrierRecordings
from relay.simulator.rest import API_VERSION, TERMINAL, DialOrder, Notification, call_resource, rfc2822
from relay.simulator.scenario import Scenario
from relay.simulator.signing import sign
from relay.simulator.speech import Voices
from relay.simulator.twiml import (
    BadDocument,
    ConnectStream,
    Dial,
    Gather,
    Hangup,
    Pause,
    Redirect,
    Say,
    Verb,
    read_document,
)

WEBHOOK_SECONDS = 15.0  # the carrier's own budget
CONNECT_SECONDS = 5.0
SAY_SECONDS_PER_CHARACTER = 0.06
SAY_SECONDS_AT_MOST = 3.0
STOP_SECONDS = 3.0  # after the time limit, for `stop` and the close handshake
MAX_DOCUMENTS = 10  # redirects beyond this are a loop
# Callbacks waiting to be delivered: four of the call, two for each stream. When it is full the service has
# not answered for minutes; the callback is dropped: the carrier promises no delivery.
WAITING_CALLBACKS = 32


@dataclass(frozen=True, slots=True)
class Network:
    """What all calls of one carrier share. `wall` is the time of day in seconds since 1970."""

    account_sid: str
    auth_token: str
    customer: Customer
    voices: Voices
    rng: random.Random
    wall: Callable[[], float]

    def new_sid(self, prefix: str) -> str:
        """A two-letter prefix and 32 hexadecimal digits."""
        return f"{prefix}{self.rng.getrandbits(128):032x}"

    async def post(self, url: str, form: Form) -> Answer:
        """A signed webhook. Raises Unreachable, also when the answer takes too long."""
        headers = {"X-Twilio-Signature": sign(self.auth_token, url, form)}
        with trio.move_on_after(WEBHOOK_SECONDS):
            return await self.customer.post(url, form, headers)
        raise Unreachable(f"no answer in {WEBHOOK_SECONDS:g} s")


@dataclass(frozen=True, slots=True)
class _Next:
    """The document to go on with, and what the request for it says beside the usual."""

    url: str
    fields: Form = field(default_factory=list)


class PlacedCall:
    """A call the carrier has accepted. `status` is what REST shows; `phones` are its streams, in order."""

    def __init__(self, network: Network, order: DialOrder, scenario: Scenario, ledger: Ledger) -> None:
        self.sid = network.new_sid("CA")
        self.status = "queued"
        self.order, self.scenario, self.ledger = order, scenario, ledger
        self.phones: list[Phone] = []
        self.notifications: list[Notification] = []
        self.created_at = network.wall()
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.answered_by: str | None = None  # once the machine detection has said it
        self._detection = Detection(scenario.carrier, order.machine_detection or "")
        self._network = network
        self._phone: Phone | None = None  # while a stream runs
        self._others = deque(scenario.other)
        self._interjections = deque(turn for turn in scenario.callee.turn if turn.when == "announcement")
        self._verdict: str | None = None  # the terminal status, once it is decided
        self.finished = trio.Event()  # over, and the last callback delivered
        self._course = trio.CancelScope()
        self._sequence = 0
        self.recordings = CarrierRecordings(network, self.sid, self._note, self._violate, self._post_later)
        self._outbox, self._waiting = trio.open_memory_channel[tuple[str, str, Form]](WAITING_CALLBACKS)

    @property
    def is_over(self) -> bool:
        """Whether the call has its terminal status."""
        return self.status in TERMINAL

    @property
    def duration_seconds(self) -> int:
        """From answer to end, as the carrier bills it; 0 while it lasts."""
        if self.answered_at is None or self.ended_at is None:
            return 0
        return math.ceil(self.ended_at - self.answered_at)

    def hang_up(self, status: str = "completed") -> None:
        """End the call: a stream is told `stop` and closed, everything else is cut short."""
        if self._verdict is None:
            self._verdict = status
        if self._phone is not None:
            self._phone.hang_up()
        else:
            self._course.cancel()

    async def run(self) -> None:
        """Live through the call; returns when its last callback is delivered."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver_callbacks)
            with self._outbox:
                with self._course:
                    await self._live()
                self.ended_at = self._network.wall()
                self._enter(self._verdict or "completed", "completed")
                self.recordings.ended(self.ended_at)
        self.finished.set()

    async def _live(self) -> None:
        network, order = self.scenario.carrier, self.order
        self._report_status("initiated", "initiated")
        self._enter("ringing", "ringing")
        if network.outcome == "no-answer" or network.ring_seconds > order.ring_seconds:
            await trio.sleep(min(network.ring_seconds, order.ring_seconds))
            self._verdict = "no-answer"
            return
        await trio.sleep(network.ring_seconds)
        if network.outcome != "answered":
            self._verdict = network.outcome
            return
        self.answered_at = self._network.wall()
        self._enter("in-progress", "answered")
        self.recordings.answered(order.recording)
        limit_at = trio.current_time() + order.limit_seconds
        self._course.deadline = limit_at + STOP_SECONDS
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._enforce_limit, limit_at)
            if self.order.machine_detection:
                nursery.start_soon(self._detect)
            await self._follow(_Next(order.url))
            nursery.cancel_scope.cancel()

    async def _enforce_limit(self, limit_at: float) -> None:
        await trio.sleep_until(limit_at)
        self._note("time-limit")
        self.hang_up()

    async def _detect(self) -> None:
        begun = trio.current_time()
        self.answered_by = await self._detection.verdict()
        milliseconds = round((trio.current_time() - begun) * 1000)
        self._note("answered-by", {"who": self.answered_by})
        if self.order.amd_callback is not None:
            form = [("CallSid", self.sid), ("AccountSid", self._network.account_sid)]
            form += [("AnsweredBy", self.answered_by), ("MachineDetectionDuration", str(milliseconds))]
            self._post_later("amd-callback", self.order.amd_callback, form)

    # ---- documents -------------------------------------------------------------------------------

    async def _follow(self, document: _Next) -> None:
        for _ in range(MAX_DOCUMENTS):
            verbs = await self._fetch(document)
            following = await self._execute(verbs, document.url)
            if following is None:
                return
            document = _Next(urljoin(document.url, following.url), following.fields)
        self._violate("the documents redirect in a loop")

    async def _fetch(self, document: _Next) -> list[Verb]:
        """The verbs of a document; none, and a notification, where the carrier would only apologise."""
        url = document.url
        try:
            answer = await self._network.post(url, self._fields(self.status) + document.fields)
        except Unreachable as error:
            self._notify(11205, f"the document could not be fetched: {error}", url)
            return []
        self._note("document", {"url": url, "status": answer.status, "body": answer.body}, sent=True)
        if not 200 <= answer.status < 300:
            self._notify(11200, f"the document was answered with {answer.status}", url)
            return []
        try:
            verbs, warnings = read_document(answer.content_type, answer.body)
        except BadDocument as error:
            self._notify(error.code, str(error), url)
            self._violate(f"{error} ({error.code})")
            return []
        for warning in warnings:
            self._violate(warning)
        return verbs

    async def _execute(self, verbs: list[Verb], url: str) -> _Next | None:
        """Do what the document at `url` says; the next one, if any."""
        for verb in verbs:
            match verb:
                case ConnectStream():
                    await self._stream(verb)
                    if self._verdict is not None:
                        return None
                case Redirect(target):
                    return _Next(target)
                case Gather():
                    gathered = await gather(verb, self._interjections, self._speak)
                    self._note("gathered", {"digits": gathered.digits, "hung_up": gathered.hung_up})
                    if gathered.hung_up:
                        return None
                    if gathered.digits or verb.action_on_empty_result:
                        keys = [("Digits", gathered.digits), ("FinishedOnKey", gathered.finished_on)]
                        return _Next(verb.action or url, [*keys, ("msg", "Gather End")])
                case Say() | Pause():
                    await self._speak(verb)
                case Dial():
                    dialled = await dial(verb, self._others, self._note)
                    told = dialled.fields(self._network.new_sid("CA"))
                    if not dialled.hung_up:
                        return _Next(verb.action, told)
                    # The carrier tells it all the same, and takes no notice of the answer.
                    self._post_later("dial", verb.action, self._fields("completed") + told)
                    return None
                case Hangup():
                    return None
        return None

    async def _speak(self, prompt: Say | Pause) -> None:
        if isinstance(prompt, Pause):
            await trio.sleep(prompt.length_seconds)
            return
        self._note("say", {"text": prompt.text})
        await trio.sleep(min(SAY_SECONDS_AT_MOST, SAY_SECONDS_PER_CHARACTER * len(prompt.text)))
        self._note("said", {"text": prompt.text})

    # ---- the stream ------------------------------------------------------------------------------

    async def _stream(self, verb: ConnectStream) -> None:
        network = self._network
        writer = StreamWriter(network.account_sid, self.sid, network.new_sid("MZ"), verb.parameters)
        callee = Callee(self.scenario.callee, lambda text: network.voices.say("callee", text))
        phone = Phone(writer, callee, self.ledger, network.rng, self.scenario.fault, self._detection.notice)
        if self.scenario.carrier.stream == "unreachable":
            self._fail_stream(verb, writer.stream_sid, 31902, "no connection")
            return
        self.phones.append(phone)
        self._phone = phone
        try:
            with trio.fail_after(CONNECT_SECONDS):
                stream = await network.customer.connect(verb.url)
            address = urlsplit(verb.url)
            end = await phone.run(
                stream,
                address.netloc,
                address.path or "/",
                sign(network.auth_token, verb.url),
                lambda: self._report_stream(verb, writer.stream_sid, "stream-started"),
            )
        except (Unreachable, trio.TooSlowError) as error:
            self._fail_stream(verb, writer.stream_sid, 31902, f"no connection: {error}")
            return
        finally:
            self._phone = None
        if end.code:
            self._fail_stream(verb, writer.stream_sid, end.code, end.detail)
        else:
            self._report_stream(verb, writer.stream_sid, "stream-stopped")
        if end.hung_up and self._verdict is None:
            self._verdict = "completed"

    def _fail_stream(self, verb: ConnectStream, stream_sid: str, code: int, detail: str) -> None:
        self._notify(code, detail, verb.url)
        self._report_stream(verb, stream_sid, "stream-error", f"{code} {detail}")

    # ---- callbacks -------------------------------------------------------------------------------

    def _enter(self, status: str, event: str) -> None:
        self.status = status
        self._report_status(status, event)

    def _report_status(self, status: str, event: str) -> None:
        self._note("status", {"status": status, "call_sid": self.sid})
        if self.order.status_callback is None or event not in self.order.status_events:
            return
        form = self._fields(status)
        form += [
            ("CallbackSource", "call-progress-events"),
            ("SequenceNumber", str(self._sequence)),
            ("Timestamp", rfc2822(self._network.wall())),
        ]
        if status in TERMINAL:
            minutes = math.ceil(self.duration_seconds / 60)
            form += [("CallDuration", str(self.duration_seconds)), ("Duration", str(minutes))]
        if status == "failed":
            form.append(("SipResponseCode", "404"))
        self._sequence += 1
        self._post_later("status-callback", self.order.status_callback, form)

    def _report_stream(self, verb: ConnectStream, stream_sid: str, event: str, error: str = "") -> None:
        if verb.status_callback is None:
            return
        now = datetime.fromtimestamp(self._network.wall(), UTC)
        form = [
            ("AccountSid", self._network.account_sid),
            ("CallSid", self.sid),
            ("StreamSid", stream_sid),
            ("StreamName", verb.name),
            ("StreamEvent", event),
            ("Timestamp", now.isoformat(timespec="milliseconds").replace("+00:00", "Z")),
        ]
        if error:
            form.append(("StreamError", error))
        self._post_later("stream-callback", urljoin(self.order.url, verb.status_callback), form)

    def _fields(self, status: str) -> Form:
        """The fields that every voice webhook carries, blank ones included."""
        order = self.order
        return [
            ("CallSid", self.sid),
            ("AccountSid", self._network.account_sid),
            ("From", order.from_number),
            ("To", order.to),
            ("Caller", order.from_number),
            ("Called", order.to),
            ("CallStatus", status),
            ("ApiVersion", API_VERSION),
            ("Direction", "outbound-api"),
            ("CallerName", ""),
            *[(f"{end}{part}", "") for end in ("From", "To") for part in ("City", "State")],
            *[(f"{end}Country", "US") for end in ("From", "To")],
        ]

    def _post_later(self, event: str, url: str, form: Form) -> None:
        try:
            self._outbox.send_nowait((event, url, form))
        except trio.WouldBlock:
            self._violate(f"{event} dropped: the service does not answer its callbacks")

    async def _deliver_callbacks(self) -> None:
        """One after the other, beside the call: a slow service does not hold up the call itself."""
        async for event, url, form in self._waiting:
            fields = dict(form)
            told = fields.get("StreamEvent") or fields.get("AnsweredBy") or fields.get("CallStatus", "it")
            try:
                answer = await self._network.post(url, form)
            except Unreachable as error:
                self._notify(11205, f"{event} {told} could not be delivered: {error}", url)
                continue
            self._note(event, {"told": told, "status": answer.status, "url": url}, sent=True)
            if not 200 <= answer.status < 300:
                self._violate(f"{event} {told} was answered with {answer.status}")

    # ---- the account -----------------------------------------------------------------------------

    def resource(self) -> dict[str, Any]:
        """The call as the REST interface shows it."""
        return call_resource(
            self._network.account_sid,
            self.sid,
            self.order,
            self.status,
            created_at=self.created_at,
            answered_at=self.answered_at,
            ended_at=self.ended_at,
            duration_seconds=self.duration_seconds,
            answered_by=self.answered_by,
        )

    def _notify(self, code: int, text: str, url: str) -> None:
        self._note("notification", {"code": code, "text": text})
        at = self._network.wall()
        self.notifications.append(Notification(self._network.new_sid("NO"), code, text, url, at))

    def _note(self, event: str, fields: Mapping[str, Any] | None = None, *, sent: bool = False) -> None:
        self.ledger.record("phone", "sent" if sent else "noted", event, fields)

    def _violate(self, sentence: str) -> None:
        self.ledger.violate("phone", sentence)
