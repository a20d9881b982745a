"""A drain waits for live calls and says for whom; when its time is up they say goodbye, and are cut at last.

Must not know real time: the clock jumps, and the signals come from the test.
"""

from __future__ import annotations

from typing import Any

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from relay.outcomes import Blame, Reason
from relay.service import LAST_WORD_SECONDS, WAITED_FOR_SECONDS, _run_until_drained
from tests.matrix.conversation import said
from tests.test_call import LOUD, Far
from tests.test_switchboard import STREAM, Desk, open_desk

DRAIN_SECONDS = 12.0


async def talk(phone: Far) -> None:
    """Twilio sends frames also while nobody speaks."""
    media = {"track": "inbound", "payload": LOUD}
    while await said(phone, event="media", streamSid=STREAM, media=media):  # noqa: ASYNC110
        await trio.sleep(1.0)


async def drain(desk: Desk, *, signals: int = 1) -> list[dict[str, Any]]:
    """From so many signals at once to the end of the drain; what was logged, with the moment of each line."""
    sent, received = trio.open_memory_channel[int](3)
    began = trio.current_time()
    for _ in range(signals):
        sent.send_nowait(15)

    def at(_logger: object, _name: str, line: Any) -> Any:
        return {**line, "at": round(trio.current_time() - began, 1)}

    with capture_logs([at]) as lines:
        await _run_until_drained(desk.board, received, DRAIN_SECONDS)
    return [dict(line) for line in lines]


async def test_a_drain_whose_time_is_up_has_the_agent_say_goodbye(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        phone = await desk.streams_in(line)
        desk.nursery.start_soon(talk, phone)
        agent = await desk.opens(phone)

        async def say_goodbye() -> None:
            await agent.hear("reply.create")
            await agent.say(type="reply.started", reply_id="r1")
            await agent.say(type="reply.audio", data=LOUD, reply_id="r1")
            await agent.say(type="reply.done", reply_id="r1")
            mark = (await phone.hear("mark"))["mark"]["name"]
            await phone.say(event="mark", streamSid=STREAM, mark={"name": mark})

        desk.nursery.start_soon(say_goodbye)
        lines = await drain(desk)
        record = await desk.ended(line, Blame.US, Reason.DRAINED)
    told = [(line["event"], line["at"]) for line in lines if line["event"] != "call ended"]
    assert told[:4] == [
        ("draining", 0.0),
        ("waiting for calls", WAITED_FOR_SECONDS),
        ("waiting for calls", 2 * WAITED_FOR_SECONDS),
        ("winding up", DRAIN_SECONDS),
    ]
    assert "cutting" not in [line["event"] for line in lines]
    assert all(line["some"] == [record.id] for line in lines if line["event"] == "waiting for calls")
    assert "goodbye heard" in [event["event"] for event in record.events]


async def test_a_node_without_calls_goes_at_once(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        began = trio.current_time()
        await drain(desk)
        assert trio.current_time() == began


async def test_the_last_callback_is_waited_for_behind_the_last_call(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        line = await desk.placed()
        began = trio.current_time()
        await drain(desk, signals=2)
        await desk.ended(line, Blame.US, Reason.DRAINED)
        assert LAST_WORD_SECONDS <= trio.current_time() - began < LAST_WORD_SECONDS + 1.0
