"""The emulated telephone against a service that speaks WebSocket by a script, in virtual time.

Knows the wire of Media Streams; nothing of documents and callbacks.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from relay.simulator.callee import Callee
from relay.simulator.ledger import Entry, Ledger, Side
from relay.simulator.media_stream import StreamWriter
from relay.simulator.mishaps import Mishaps
from relay.simulator.phone import Phone, StreamEnd
from relay.simulator.playout import CAPACITY_BYTES, Playout
from relay.simulator.scenario import Callee as CalleeScript
from relay.simulator.scenario import CalleeTurn, Fault
from relay.simulator.sound import BYTES_PER_SECOND, FRAME_BYTES, babble, frames

STREAM_SID = "MZ" + "a" * 32
WORDS = babble("Good morning to you, this is the agent.")
ANSWER = "Yes, speaking."


@dataclass
class Line:
    """A running stream: the service's end of the socket and what came of it."""

    ws: WebSocketConnection
    phone: Phone
    ledger: Ledger
    headers: dict[str, str]
    path: str
    stream: trio.abc.Stream
    ended: trio.Event = field(default_factory=trio.Event)
    end: StreamEnd | None = None

    async def receive(self, event: str) -> dict[str, Any]:
        """The next message of that kind; others are passed over."""
        while True:
            message: dict[str, Any] = json.loads(await self.ws.get_message())
            if message["event"] == event:
                return message

    async def play(self, audio: bytes) -> None:
        await self.order("media", media={"payload": base64.b64encode(audio).decode()})

    async def order(self, event: str, **content: Any) -> None:
        await self.ws.send_message(json.dumps({"event": event, "streamSid": STREAM_SID, **content}))

    async def wait_closed(self) -> int:
        """Read until the carrier closes; its close code."""
        try:
            while True:
                await self.ws.get_message()
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason else 0


def make_writer() -> StreamWriter:
    return StreamWriter("AC" + "1" * 32, "CA" + "2" * 32, STREAM_SID, {"token": "secret"})


@asynccontextmanager
async def open_line(*turns: CalleeTurn, faults: tuple[Fault, ...] = (), **script: Any) -> AsyncIterator[Line]:
    ours, theirs = memory_stream_pair()
    ledger = Ledger()
    callee = Callee(CalleeScript(turn=turns, **script), babble)
    phone = Phone(make_writer(), callee, ledger, random.Random(1), faults)
    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:

            async def carry() -> None:
                line_end = await phone.run(theirs, "relay.example", "/twilio-stream", "c2lnbmVk")
                line.end = line_end
                line.ended.set()

            nursery.start_soon(carry)
            request = await wrap_server_stream(nursery, ours)
            headers = {name.decode(): value.decode() for name, value in request.headers}
            path = request.path
            line = Line(await request.accept(), phone, ledger, headers, path, theirs)
            yield line
            nursery.cancel_scope.cancel()


def said_by_callee(ledger: Ledger) -> bytes:
    return b"".join(base64.b64decode(e.payload or "") for e in ledger.select("phone", "sent", "media"))


# ---- what the carrier sends ----------------------------------------------------------------------


async def test_the_upgrade_is_signed_and_asks_for_the_path_of_the_document(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        assert line.headers["x-twilio-signature"] == "c2lnbmVk"
        assert line.path == "/twilio-stream"


async def test_a_stream_begins_with_connected_and_start(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        connected = json.loads(await line.ws.get_message())
        assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        start = json.loads(await line.ws.get_message())
        assert start == {
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": STREAM_SID,
            "start": {
                "accountSid": "AC" + "1" * 32,
                "streamSid": STREAM_SID,
                "callSid": "CA" + "2" * 32,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"token": "secret"},
            },
        }


async def test_media_comes_every_20_ms_with_counters_that_are_texts(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        begun = trio.current_time()
        media = [await line.receive("media") for _ in range(50)]
        first_ms = int(media[0]["media"]["timestamp"])
        assert 60 <= first_ms <= 150
        assert media[7] == {
            "event": "media",
            "sequenceNumber": "9",
            "streamSid": STREAM_SID,
            "media": {
                "track": "inbound",
                "chunk": "8",
                "timestamp": str(first_ms + 140),
                "payload": base64.b64encode(b"\xff" * FRAME_BYTES).decode(),
            },
        }
        assert trio.current_time() - begun == pytest.approx(first_ms / 1000 + 0.98, abs=0.01)


# ---- playout -------------------------------------------------------------------------------------


async def test_a_mark_comes_back_when_everything_before_it_was_played(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.receive("media")
        begun = trio.current_time()
        await line.play(WORDS)  # far faster than real time
        await line.order("mark", mark={"name": "first"})
        await line.play(WORDS)
        await line.order("mark", mark={"name": "second"})
        for count, name in enumerate(["first", "second"], 1):
            assert (await line.receive("mark"))["mark"] == {"name": name}
            due = count * len(WORDS) / BYTES_PER_SECOND
            assert trio.current_time() - begun == pytest.approx(due, abs=0.05)
        assert WORDS + WORDS in bytes(line.phone.heard)


async def test_a_mark_behind_nothing_comes_back_at_once(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        begun = trio.current_time()
        await line.order("mark", mark={"name": "now"})
        assert (await line.receive("mark"))["mark"] == {"name": "now"}
        assert trio.current_time() - begun < 0.02


async def test_clear_silences_the_phone_and_returns_every_mark(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.play(WORDS)
        for name in ("one", "two"):
            await line.order("mark", mark={"name": name})
        for _ in range(25):
            await line.receive("media")
        cleared_at = trio.current_time()
        await line.order("clear")
        assert [(await line.receive("mark"))["mark"]["name"] for _ in range(2)] == ["one", "two"]
        assert trio.current_time() == cleared_at
        played = len(line.phone.heard)
        for _ in range(25):
            await line.receive("media")
        assert set(line.phone.heard[played:]) == {0xFF}
        [cleared] = line.ledger.select("phone", "noted", "cleared")
        assert (
            cleared.fields["bytes"]
            == len(WORDS) - WORDS.find(bytes(line.phone.heard[played - 160 : played])) - 160
        )


def test_the_buffer_holds_ten_minutes_and_discards_the_rest() -> None:
    playout = Playout()
    assert playout.queue(bytes(CAPACITY_BYTES)) == 0
    assert playout.queue(bytes(300)) == 300
    assert playout.queued_bytes == CAPACITY_BYTES
    playout.play_frame()
    assert playout.queue(bytes(300)) == 140


async def test_both_tracks_lie_on_one_timeline(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.play(WORDS)
        for _ in range(100):
            await line.receive("media")
        assert len(line.phone.said) == len(line.phone.heard) >= 99 * FRAME_BYTES


# ---- what the service sends ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"\xff" * 160, "31950"),
        ("not JSON", "not JSON"),
        ("[]", "unknown event"),
        ('{"event":"hello","streamSid":"%s"}', "unknown event 'hello'"),
        ('{"event":"clear"}', "foreign streamSid"),
        ('{"event":"clear","streamSid":"MZ1"}', "foreign streamSid"),
        ('{"event":"clear","streamSid":"%s","x":1}', "extra field: x"),
        ('{"event":"mark","streamSid":"%s"}', "missing or extra field: mark"),
        ('{"event":"mark","streamSid":"%s","mark":{}}', "field: name"),
        ('{"event":"mark","streamSid":"%s","mark":{"name":""}}', "not a text"),
        ('{"event":"mark","streamSid":"%s","mark":"utt"}', "not an object"),
        ('{"event":"media","streamSid":"%s","media":{"payload":"AA=","track":"x"}}', "field: track"),
        ('{"event":"media","streamSid":"%s","media":{"payload":"not base64!"}}', "not base64"),
        ('{"event":"media","streamSid":"%s","media":{"payload":"UklGRgAAAAA="}}', "WAV"),
    ],
)
async def test_what_breaks_the_protocol_is_ignored_and_is_a_violation(
    message: str | bytes, complaint: str, autojump_clock: MockClock
) -> None:
    async with open_line() as line:
        await line.ws.send_message(message.replace("%s", STREAM_SID) if isinstance(message, str) else message)
        await line.order("mark", mark={"name": "still alive"})
        await line.receive("mark")
        [violation] = line.ledger.violations
        assert complaint in violation
        assert violation.startswith("phone: ")


async def test_payloads_are_kept_as_they_came(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.play(WORDS[:300])
        await line.order("mark", mark={"name": "m"})
        await line.receive("mark")
        [media] = line.ledger.select("phone", "received", "media")
        assert media.payload == base64.b64encode(WORDS[:300]).decode()
        assert line.ledger.violations == []


# ---- the callee ----------------------------------------------------------------------------------


async def test_the_callee_answers_once_the_agent_has_finished(autojump_clock: MockClock) -> None:
    async with open_line(CalleeTurn(say=ANSWER, pause_seconds=0.6)) as line:
        await line.play(WORDS)
        for _ in range(300):
            await line.receive("media")
        spoken = b"".join(frames(babble(ANSWER)))
        assert spoken in said_by_callee(line.ledger)
        [quiet] = line.ledger.select("phone", "noted", "agent-silent")
        [begun] = line.ledger.select("phone", "noted", "speech-started")
        assert begun.fields["text"] == ANSWER
        assert begun.at - quiet.fields["happened_at"] == pytest.approx(0.6, abs=0.05)


async def test_without_an_agent_the_callee_stays_silent(autojump_clock: MockClock) -> None:
    async with open_line(CalleeTurn(say=ANSWER), leave_after_seconds=0.5) as line:
        for _ in range(500):
            await line.receive("media")
        assert set(line.phone.said) == {0xFF}


async def test_the_callee_breaks_in_while_the_agent_speaks(autojump_clock: MockClock) -> None:
    async with open_line(CalleeTurn(when="agent-speaking", pause_seconds=0.5, say="Wait.")) as line:
        await line.play(WORDS)
        for _ in range(80):
            await line.receive("media")
        [audible] = line.ledger.select("phone", "noted", "agent-audible")
        [begun] = line.ledger.select("phone", "noted", "speech-started")
        assert 0.45 < begun.at - audible.at < 0.9  # half a second of sound, pauses between words not counted


async def test_the_callee_breaks_into_the_next_utterance_not_into_the_one_under_way(
    autojump_clock: MockClock,
) -> None:
    first = CalleeTurn(when="agent-speaking", pause_seconds=0.2, say="Hm.")
    second = CalleeTurn(when="agent-speaking", pause_seconds=0.2, say="Wait.")
    async with open_line(first, second) as line:
        await line.play(WORDS)
        await line.order("mark", mark={"name": "end"})
        await line.receive("mark")
        assert len(line.ledger.select("phone", "noted", "speech-started")) == 1
        await trio.sleep(1)
        await line.play(WORDS)
        await trio.sleep(2)
        assert len(line.ledger.select("phone", "noted", "speech-started")) == 2


async def test_a_key_is_pressed_as_dtmf(autojump_clock: MockClock) -> None:
    async with open_line(CalleeTurn(when="answered", pause_seconds=0.5, press="9")) as line:
        dtmf = await line.receive("dtmf")
        assert dtmf["dtmf"] == {"track": "inbound_track", "digit": "9"}


async def test_a_callee_who_hangs_up_ends_the_stream_with_stop_and_1000(autojump_clock: MockClock) -> None:
    async with open_line(CalleeTurn(when="answered", pause_seconds=0.5, hang_up=True)) as line:
        stop = await line.receive("stop")
        assert stop["stop"] == {"accountSid": "AC" + "1" * 32, "callSid": "CA" + "2" * 32}
        assert await line.wait_closed() == 1000
        await line.ended.wait()
        assert line.end == StreamEnd(hung_up=True)
        assert line.ledger.select("phone", "noted", "callee-hung-up")


async def test_the_callee_leaves_after_the_last_words_of_the_agent(autojump_clock: MockClock) -> None:
    async with open_line(CalleeTurn(say=ANSWER), leave_after_seconds=0.8) as line:
        await line.play(WORDS)
        while not line.ledger.select("phone", "noted", "speech-ended"):
            await line.receive("media")
        await trio.sleep(3)  # nothing is said: he waits
        assert line.end is None
        await line.play(WORDS)
        await line.receive("stop")
        [*_, quiet] = line.ledger.select("phone", "noted", "agent-silent")
        assert trio.current_time() - quiet.fields["happened_at"] == pytest.approx(0.8, abs=0.06)


# ---- ends ----------------------------------------------------------------------------------------


async def test_a_hang_up_from_outside_sends_stop_within_a_frame(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.receive("media")
        asked_at = trio.current_time()
        line.phone.hang_up()
        await line.receive("stop")
        assert trio.current_time() - asked_at < 0.03
        assert await line.wait_closed() == 1000
        await line.ended.wait()
        assert line.end == StreamEnd(hung_up=True)


@pytest.mark.parametrize(("code", "carrier_code"), [(1000, 0), (1011, 31921)])
async def test_the_service_may_close_the_stream(
    code: int, carrier_code: int, autojump_clock: MockClock
) -> None:
    async with open_line() as line:
        await line.receive("media")
        await line.ws.aclose(code=code)
        await line.ended.wait()
        assert line.end is not None
        assert (line.end.hung_up, line.end.code) == (False, carrier_code)
        assert not line.ledger.select("phone", "sent", "stop")


async def test_a_service_that_vanishes_is_a_broken_pipe(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.receive("media")
        await trio.aclose_forcefully(line.ws._stream)
        await line.ended.wait()
        assert line.end is not None
        assert (line.end.hung_up, line.end.code) == (False, 31903)


async def test_a_frame_that_breaks_the_websocket_protocol_is_a_violation(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.receive("media")
        await line.ws._stream.send_all(b"\xff\xff")  # reserved bits, an unknown opcode and a mask
        await line.ended.wait()
        assert line.end is not None
        assert (line.end.hung_up, line.end.code) == (False, 31924)
        [violation] = line.ledger.violations
        assert "WebSocket protocol" in violation


async def test_a_service_that_stops_reading_is_given_up_after_five_seconds(autojump_clock: MockClock) -> None:
    async with open_line() as line:
        await line.receive("media")
        stuck_at = trio.current_time()
        assert isinstance(line.stream, trio.StapledStream)
        line.stream.send_stream.send_all_hook = trio.sleep_forever
        await line.ended.wait()
        assert line.end is not None
        assert line.end.code == 31903
        assert trio.current_time() - stuck_at == pytest.approx(5, abs=0.1)


async def test_a_ping_that_crosses_the_close_does_no_harm(autojump_clock: MockClock) -> None:
    async with open_line(CalleeTurn(when="answered", pause_seconds=0.1, hang_up=True)) as line:
        await line.receive("stop")
        with trio.move_on_after(1), pytest.raises(ConnectionClosed):
            await line.ws.ping()
        await line.ended.wait()
        assert line.end == StreamEnd(hung_up=True)


@pytest.mark.parametrize("answer", ["refused", "mute"])
async def test_an_upgrade_that_is_not_accepted_gives_no_stream(
    answer: str, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    phone = Phone(make_writer(), Callee(CalleeScript(), babble), Ledger(), random.Random(1))
    started: list[bool] = []
    async with trio.open_nursery() as nursery:
        if answer == "refused":

            async def refuse() -> None:
                request = await wrap_server_stream(nursery, ours)
                await request.reject(403, body=b"no")

            nursery.start_soon(refuse)
        end = await phone.run(theirs, "relay.example", "/s", "sig", lambda: started.append(True))
        nursery.cancel_scope.cancel()
    assert (end.hung_up, end.code) == (False, 31920 if answer == "refused" else 31901)
    assert not started
    assert trio.current_time() < 6


# ---- mishaps -------------------------------------------------------------------------------------


def fault(kind: str, at: str = "seconds:0.5") -> tuple[Fault, ...]:
    return (Fault(leg="phone", at=at, kind=kind),)


@pytest.mark.parametrize(("kind", "code"), [("rst", 1006), ("fin", 1006), ("close:1011", 1011)])
async def test_a_mishap_may_take_the_socket(kind: str, code: int, autojump_clock: MockClock) -> None:
    async with open_line(faults=fault(kind)) as line:
        assert await line.wait_closed() == code
        await line.ended.wait()
        assert line.end is not None
        assert line.end.code
        assert not line.ledger.select("phone", "sent", "stop")


@pytest.mark.parametrize("kind", ["rst", "fin"])
async def test_a_socket_is_reset_or_finished_as_the_mishap_says(kind: str) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    phone = Phone(make_writer(), Callee(CalleeScript(), babble), Ledger(), random.Random(1), fault(kind))
    seen: list[str] = []
    gone = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as reader:
            ws = await (await wrap_server_stream(reader, stream)).accept()
            reader.cancel_scope.cancel()  # the socket itself is what is watched from here on
        assert ws.closed is None
        try:
            while await stream.receive_some():
                pass
            seen.append("fin")
        except trio.BrokenResourceError:
            seen.append("rst")
        gone.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            line = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
            await phone.run(line, "relay.example", "/s", "sig")
            await gone.wait()
            nursery.cancel_scope.cancel()
    assert seen == [kind]


async def test_a_mishap_may_send_what_nobody_can_read(autojump_clock: MockClock) -> None:
    faults = fault("garbage") + fault("binary", "seconds:1") + fault("oversize", "seconds:1.5")
    async with open_line(faults=faults) as line:
        unreadable: list[str | bytes] = []
        while len(unreadable) < 14:
            message = await line.ws.get_message()
            if isinstance(message, bytes) or len(message) > 60_000 or message == '{"event": "media", ':
                unreadable.append(message)
        assert isinstance(unreadable[12], bytes)
        assert len(unreadable[13]) > 65_536


async def test_a_mishap_may_start_a_second_stream(autojump_clock: MockClock) -> None:
    async with open_line(faults=fault("duplicate-start")) as line:
        first, second = await line.receive("start"), await line.receive("start")
        assert first["start"]["streamSid"] != second["start"]["streamSid"]


async def test_a_phone_without_media_still_returns_marks_and_a_mute_one_returns_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_line(faults=fault("stop-media") + fault("mute", "seconds:2")) as line:
        await trio.sleep(1)
        await line.play(WORDS[:320])
        await line.order("mark", mark={"name": "played"})
        await line.receive("mark")
        sent = len(line.ledger.select("phone", "sent", "media"))
        await trio.sleep(2)
        await line.order("mark", mark={"name": "lost"})
        await trio.sleep(1)
        assert len(line.ledger.select("phone", "sent", "media")) == sent
        assert len(line.ledger.select("phone", "sent", "mark")) == 1


async def test_a_phone_that_stops_reading_leaves_pings_unanswered(autojump_clock: MockClock) -> None:
    async with open_line(faults=fault("stop-reading")) as line:
        await trio.sleep(1)
        for _ in range(70):  # more than the library keeps for a reader
            await line.play(WORDS[:160])
        with trio.move_on_after(10) as scope:
            await line.ws.ping()
        assert scope.cancelled_caught


STORY: tuple[tuple[float, str, str], ...] = (
    (0.0, "phone", "start"),
    (1.0, "phone", "agent-audible"),  # the opening
    (3.0, "phone", "agent-silent"),
    (5.0, "phone", "speech-ended"),
    (6.0, "agent", "tool.call book_appointment"),
    (7.0, "phone", "agent-audible"),  # the answer
    (8.0, "phone", "agent-silent"),
    (9.0, "agent", "tool.call end_call"),
    (9.2, "phone", "agent-audible"),  # the farewell
)


@pytest.mark.parametrize(
    ("at", "strikes_at"),
    [
        ("before-ready", 0.0),
        ("opening", 1.3),
        ("tool-running", 6.0),
        ("mid-speech", 7.3),
        ("farewell", 9.5),
        ("seconds:3.2", 3.2),
    ],
)
def test_a_mishap_strikes_once_and_at_its_moment(at: str, strikes_at: float) -> None:
    ledger = Ledger()
    mishaps = Mishaps(fault("mute", at), ledger)
    struck = []
    story = list(STORY)
    for tick in range(600):
        now = tick * 0.02
        while story and story[0][0] <= now:
            _, side, told = story.pop(0)
            event, _, name = told.partition(" ")
            ledger.entries.append(Entry(now, cast(Side, side), "noted", event, {"name": name}))
        struck += [now for _ in mishaps.due(now)]
    assert struck == [pytest.approx(strikes_at, abs=0.03)]
