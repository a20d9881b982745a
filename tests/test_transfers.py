"""A call is handed over to a person: the goodbye is heard, the agent is gone, and what fails comes back.

Must not know HTTP or real time: switchboards share a ledger and a carrier, and the test is Twilio.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from relay.goodbye import PUT_THROUGH
from relay.line import DIAL_WORD_SECONDS, Line
from relay.outcomes import Blame, Reason
from relay.sessions import OFFER
from relay.store import CallRecord, StoreError
from relay.switchboard import REATTACHMENTS, RETURNS, Document
from relay.tools.builtin import builtin_tools
from relay.wire.callbacks import CarrierStatus, DialCallback, DialOutcome
from tests.test_call import LOUD, Far
from tests.test_switchboard import PROFILE, SID, STREAM, Desk, open_desk
from tests.test_takeover import Pair, open_pair, paid

NAMES = {"front desk": "+12025550111", "abroad": "+442079460000"}
PERSON = PROFILE.model_copy(update={"tools": ("transfer_call", "end_call"), "transfers": NAMES})
TOOLS = tuple(builtin_tools(PERSON.transfers)[name] for name in PERSON.tools)
SETTINGS: dict[str, Any] = {"profile": PERSON, "tools": TOOLS}


async def ask_for(agent: Far, to: str, run: str = "t1") -> dict[str, Any]:
    """The agent calls the tool; what it is told."""
    await agent.say(type="tool.call", call_id=run, name="transfer_call", arguments={"to": to})
    return await agent.hear("tool.result")


async def says_goodbye(phone: Far, agent: Far, reply: str = "r9") -> str:
    """The agent says whom it puts through to; the mark behind it, which is not echoed yet."""
    await agent.say(type="reply.started", reply_id=reply)
    await agent.say(type="reply.audio", data=LOUD, reply_id=reply)
    await agent.say(type="reply.done", reply_id=reply)
    return str((await phone.hear("mark"))["mark"]["name"])


async def echo(phone: Far, mark: str) -> None:
    await phone.say(event="mark", streamSid=STREAM, mark={"name": mark})


async def put_through(phone: Far, agent: Far) -> None:
    """The goodbye is heard, and the agent's session is over."""
    await echo(phone, await says_goodbye(phone, agent))
    await agent.hear("session.end")
    await agent.say(type="session.ended")
    await trio.testing.wait_all_tasks_blocked()


async def dial_is_over(
    desk: Desk, call_id: str, outcome: DialOutcome, attempt: int = 1, *, is_over: bool = False
) -> Document | None:
    """Twilio's word of the dial, and of the call too; what follows."""
    talked_seconds = 61 if outcome.is_answered else None
    told = DialCallback(SID, outcome, is_over, talked_seconds)
    return await desk.board.transfers.over(call_id, attempt, told)


async def talking(desk: Desk) -> tuple[Line, Far, Far]:
    line = await desk.placed()
    phone = await desk.streams_in(line)
    desk.nursery.start_soon(desk.stay_on_the_line, phone)
    return line, phone, await desk.opens(phone)


async def handed_over(desk: Desk, to: str = "front desk") -> Line:
    """A call whose goodbye was heard; Twilio fetches what follows."""
    line, phone, agent = await talking(desk)
    assert (await ask_for(agent, to))["is_error"] is False
    await put_through(phone, agent)
    return line


async def have_talked(
    desk: Desk, line: Line, attempt: int = 1, outcome: DialOutcome = DialOutcome.COMPLETED
) -> CallRecord:
    """Somebody took the call, and it is over."""
    assert await dial_is_over(desk, line.record.id, outcome, attempt) is Document.HANG_UP
    await desk.says(line, CarrierStatus.COMPLETED)
    return await desk.ended(line, Blame.NOBODY, Reason.TRANSFERRED)


def events(record: CallRecord, name: str) -> list[dict[str, Any]]:
    return [event for event in record.events if event["event"] == name]


# ---- handing over -----------------------------------------------------------------------------------


async def test_the_goodbye_is_heard_and_the_agent_gone_before_anybody_is_dialled(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line, phone, agent = await talking(desk)
        await ask_for(agent, "front desk")
        mark = await says_goodbye(phone, agent)
        await trio.sleep(0.2)
        assert desk.board.line(line.record.id) is line
        assert line.call is not None
        assert line.call.ending is None
        await echo(phone, mark)
        await agent.hear("session.end")
        await agent.say(type="session.ended")
        await trio.sleep(2)
        assert line.is_transferring
        assert line.ending is None
        assert await desk.board.document(line.record.id, 1, SID) is Document.DIAL
        found = await desk.board.transfers.destination(line.record.id)
        assert found is not None
        assert (found.number, found.caller_id) == ("+12025550111", "+12025550100")
        record = await have_talked(desk, line)
        assert desk.carrier.hung_up == []
        assert all(stream.closed for stream in desk.streams)
        (run,) = record.as_json()["tools"]
        assert (run["tool"], run["run"], run["arguments"]) == ("transfer_call", "t1", {"to": "front desk"})
        assert "after your sentence" in run["result"]
        outcome = events(record, "transfer")[-1]
        assert (outcome["to"], outcome["outcome"]) == ("front desk", "completed")
        assert "+12025550111" not in json.dumps(record.as_json())


async def test_while_two_people_talk_the_call_lasts_for_as_long_as_its_limit(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line, phone, agent = await talking(desk)
        await ask_for(agent, "front desk")
        await trio.sleep(2)
        await put_through(phone, agent)
        await trio.sleep(400)
        assert line.ending is None
        assert desk.board.lines == [line]
        assert line.record.summary()["status"] == "live"
        record = await have_talked(desk, line)
        assert record.duration_seconds >= 400
        costs = [(cost["item"], cost["seconds"]) for cost in record.as_json()["costs"]]
        assert ("twilio-voice", 61.0) in costs  # the other leg, by Twilio's word
        assert ("twilio-voice", record.duration_seconds) in costs
        assert ("twilio-media-stream", round(record.duration_seconds - 61, 3)) in costs
        (session,) = (cost for cost in record.as_json()["costs"] if cost["item"] == "assemblyai-session")
        assert 2 <= session["seconds"] < 4  # it was over before they talked


async def test_a_person_who_speaks_over_it_is_not_handed_over(autojump_clock: MockClock) -> None:
    async with open_desk(**SETTINGS) as desk:
        line, phone, agent = await talking(desk)
        await ask_for(agent, "front desk")
        await agent.say(type="reply.started", reply_id="r9")
        await agent.say(type="reply.audio", data=LOUD, reply_id="r9")
        await agent.say(type="reply.done", reply_id="r9", status="interrupted")
        await phone.hear("clear")
        await trio.sleep(5)
        assert not line.is_transferring
        line.hang_up(goodbye=False)
        await desk.ended(line, Blame.US, Reason.OPERATOR)


async def test_an_agent_that_says_nothing_is_told_what_to_say(autojump_clock: MockClock) -> None:
    """Its session was lost behind the tool: the next one knows that somebody is to be put through."""
    async with open_desk(**SETTINGS) as desk:
        line, phone, agent = await talking(desk)
        await ask_for(agent, "front desk")
        await agent.stream.aclose()
        again = await desk.agent()
        await again.say(type="session.ready", session_id="s2")
        assert (await again.hear("reply.create"))["instructions"] == PUT_THROUGH
        await put_through(phone, again)
        assert await desk.board.document(line.record.id, 1, SID) is Document.DIAL
        await have_talked(desk, line, outcome=DialOutcome.ANSWERED)


# ---- a transfer that fails ---------------------------------------------------------------------------


async def comes_back(desk: Desk, line: Line, outcome: DialOutcome, attempt: int = 1) -> tuple[Line, Far, Far]:
    """The call with its next stream, and the agent that was told."""
    assert await desk.board.document(line.record.id, attempt, SID) is Document.DIAL
    assert await dial_is_over(desk, line.record.id, outcome, attempt) is None
    assert await desk.board.document(line.record.id, attempt, SID) is Document.CONNECT
    phone = await desk.joins(line.record.id, attempt)
    desk.nursery.start_soon(desk.stay_on_the_line, phone)
    agent = await desk.agent()
    back = desk.board.line(line.record.id)
    assert back is not None
    return back, phone, agent


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (DialOutcome.BUSY, "the line was busy"),
        (DialOutcome.NO_ANSWER, "nobody answered"),
        (DialOutcome.FAILED, "the call could not be completed"),
    ],
)
async def test_one_that_fails_comes_back_to_an_agent_that_knows_what_happened(
    autojump_clock: MockClock, outcome: DialOutcome, why: str
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        await trio.sleep(2)  # it rings
        back, phone, agent = await comes_back(desk, line, outcome)
        news = f"The person was to be put through to front desk, and that failed: {why}."
        session = (await agent.hear("session.update"))["session"]
        assert news in session["system_prompt"]
        assert 'function transfer_call: {"putting_through_to":"front desk"' in session["system_prompt"]
        assert "greeting" not in session
        await agent.say(type="session.ready", session_id="s2")
        assert (await agent.hear("reply.create"))["instructions"] == f"{news} {OFFER}"
        await echo(phone, await says_goodbye(phone, agent))
        back.hang_up(goodbye=False)
        record = await desk.ended(back, Blame.US, Reason.OPERATOR)
        assert events(record, "transfer")[-1]["outcome"] == outcome.value
        assert events(record, "came back")
        assert events(record, "taken over") == []  # which says that a node has died
        assert record.attempt == 1
        assert paid(record)["twilio-voice"] == 1


async def test_it_may_be_tried_again(autojump_clock: MockClock) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        back, phone, agent = await comes_back(desk, line, DialOutcome.BUSY)
        await agent.say(type="session.ready", session_id="s2")
        await agent.hear("reply.create")
        await ask_for(agent, "front desk", "t2")
        await put_through(phone, agent)
        assert await desk.board.document(line.record.id, 2, SID) is Document.DIAL
        record = await have_talked(desk, back, attempt=2)
        assert [each["outcome"] for each in events(record, "transfer")] == ["busy", "completed"]


async def test_a_word_that_is_repeated_changes_nothing(autojump_clock: MockClock) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        assert await dial_is_over(desk, line.record.id, DialOutcome.BUSY) is None
        assert await dial_is_over(desk, line.record.id, DialOutcome.BUSY) is None
        assert await desk.board.document(line.record.id, 1, SID) is Document.CONNECT
        (back,) = desk.board.lines
        back.hang_up(goodbye=False)
        await desk.ended(back, Blame.US, Reason.OPERATOR)


async def test_a_call_that_nobody_takes_over_again_and_again_ends_with_an_apology(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        line.record.attempt = REATTACHMENTS + RETURNS  # it went on as often as it may
        attempt = line.record.attempt + 1
        follows = await dial_is_over(desk, line.record.id, DialOutcome.NO_ANSWER, attempt)
        assert follows is Document.SAY
        assert line.ending is not None
        assert (line.ending.blame, line.ending.reason) == (Blame.CARRIER, Reason.TRANSFER_FAILED)
        await desk.says(line, CarrierStatus.COMPLETED)
        with trio.fail_after(100):
            await desk.board.wait_idle()


async def test_a_person_who_hangs_up_meanwhile_has_hung_up(autojump_clock: MockClock) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        await desk.says(line, CarrierStatus.COMPLETED)
        follows = await dial_is_over(desk, line.record.id, DialOutcome.CANCELED, is_over=True)
        assert follows is Document.HANG_UP
        await desk.ended(line, Blame.CALLEE, Reason.HUNG_UP)
        assert desk.carrier.hung_up == []


async def test_what_became_of_it_may_be_told_behind_the_end_of_the_call(autojump_clock: MockClock) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        await desk.says(line, CarrierStatus.COMPLETED)
        await trio.sleep(DIAL_WORD_SECONDS / 2)
        await dial_is_over(desk, line.record.id, DialOutcome.COMPLETED, is_over=True)
        await desk.ended(line, Blame.NOBODY, Reason.TRANSFERRED)


async def test_a_call_of_which_nothing_more_is_told_ends_all_the_same(autojump_clock: MockClock) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        began = trio.current_time()
        await desk.ended(line, Blame.CARRIER, Reason.TRANSFER_FAILED)
        assert trio.current_time() - began < 700
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


@pytest.mark.parametrize(
    ("outcome", "follows", "ending"),
    [
        (DialOutcome.COMPLETED, Document.HANG_UP, (Blame.NOBODY, Reason.TRANSFERRED)),
        (DialOutcome.BUSY, Document.SAY, (Blame.CARRIER, Reason.TRANSFER_FAILED)),
    ],
)
async def test_without_the_ledger_what_has_worked_stays_and_what_has_not_is_apologised_for(
    autojump_clock: MockClock, outcome: DialOutcome, follows: Document, ending: tuple[Blame, Reason]
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        desk.store.fails = StoreError("down")
        desk.store.take_over = desk.store.find = _down  # type: ignore[method-assign]
        assert await desk.board.document(line.record.id, 1, SID) is Document.DIAL
        assert await dial_is_over(desk, line.record.id, outcome) is follows
        desk.store.fails = None
        await desk.says(line, CarrierStatus.COMPLETED)
        await desk.ended(line, *ending)


async def _down(*_args: Any, **_options: Any) -> Any:
    await trio.lowlevel.checkpoint()
    raise StoreError("down")


@pytest.mark.parametrize("goodbye", [True, False])
async def test_an_operator_ends_a_call_that_is_being_handed_over(
    autojump_clock: MockClock, goodbye: bool
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk)
        line.hang_up(goodbye=goodbye)
        await desk.ended(line, Blame.US, Reason.OPERATOR)
        assert [sid for sid, _ in desk.carrier.hung_up] == [SID]


# ---- several nodes -----------------------------------------------------------------------------------


async def pair_hands_over(pair: Pair) -> str:
    pair.line = await handed_over(pair.first)
    await pair.first.reconciler.save_live()
    return pair.line.record.id


async def test_any_node_serves_the_dial_and_takes_back_what_failed(autojump_clock: MockClock) -> None:
    async with open_pair(**SETTINGS) as pair:
        call_id = await pair_hands_over(pair)
        other = pair.second
        assert await other.board.document(call_id, 1, SID) is Document.DIAL
        assert await other.board.transfers.destination(call_id) is not None
        assert await dial_is_over(other, call_id, DialOutcome.BUSY) is None
        assert await other.board.document(call_id, 1, SID) is Document.CONNECT
        phone = await other.joins(call_id, 1)
        other.nursery.start_soon(other.stay_on_the_line, phone)
        agent = await other.agent()
        assert "the line was busy" in (await agent.hear("session.update"))["session"]["system_prompt"]
        await agent.say(type="session.ready", session_id="s2")
        await pair.first.reconciler.grant_wishes()
        back = other.board.line(call_id)
        assert back is not None
        back.hang_up(goodbye=False)
        await pair.only_record(call_id, Blame.US, Reason.OPERATOR)


async def test_the_owner_hears_from_another_node_that_somebody_has_taken_over(
    autojump_clock: MockClock,
) -> None:
    async with open_pair(**SETTINGS) as pair:
        call_id = await pair_hands_over(pair)
        follows = await dial_is_over(pair.second, call_id, DialOutcome.COMPLETED)
        assert follows is Document.HANG_UP
        await pair.first.reconciler.grant_wishes()
        record = await pair.only_record(call_id, Blame.NOBODY, Reason.TRANSFERRED)
        assert 61.0 in [cost["seconds"] for cost in record.as_json()["costs"]]


async def test_two_people_talk_on_when_the_node_dies_that_put_them_through(
    autojump_clock: MockClock,
) -> None:
    async with open_pair(**SETTINGS) as pair:
        call_id = await pair_hands_over(pair)
        await trio.sleep(40)  # the first says nothing to the ledger, as if it were dead
        await pair.second.reconciler.reconcile()
        record = await pair.store.get(call_id)
        assert record is not None
        assert record.ending is None
        assert pair.carrier.hung_up == []
        pair.line.give_way()


# ---- whom ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": "+19005550123"},
        {"to": "+12025550111"},
        {"to": "the boss"},
        {"to": "front desk\n+19005550123"},
        {"to": "front desk", "number": "+19005550123"},
        {"number": "+19005550123"},
        {"to": ["front desk"]},
        {"to": ""},
        {},
    ],
)
async def test_what_is_said_on_the_telephone_names_nobody_but_whom_the_profile_names(
    autojump_clock: MockClock, arguments: dict[str, Any]
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line, phone, agent = await talking(desk)
        await agent.say(type="tool.call", call_id="t1", name="transfer_call", arguments=arguments)
        told = await agent.hear("tool.result")
        assert told["is_error"] is True
        assert "+1900" not in told["result"]
        mark = await says_goodbye(phone, agent)
        await echo(phone, mark)
        await trio.sleep(3)
        assert not line.is_transferring
        assert await desk.board.transfers.destination(line.record.id) is None
        line.hang_up(goodbye=False)
        await desk.ended(line, Blame.US, Reason.OPERATOR)


def test_the_agent_is_told_names_and_no_number() -> None:
    told = json.dumps([tool.definition for tool in TOOLS])
    assert "front desk" in told
    assert "+1202" not in told


async def test_a_number_that_the_rules_do_not_allow_is_not_dialled_but_comes_back(
    autojump_clock: MockClock,
) -> None:
    async with open_desk(**SETTINGS) as desk:
        line = await handed_over(desk, "abroad")
        assert await desk.board.document(line.record.id, 1, SID) is Document.DIAL
        assert await desk.board.transfers.destination(line.record.id) is None
        line.hang_up(goodbye=False)
        await desk.ended(line, Blame.US, Reason.OPERATOR)
