"""`<Gather>` as the carrier runs it: what is said, the keys that stop it, and what follows."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from relay.simulator.customer import Answer
from relay.simulator.ledger import Ledger
from relay.simulator.scenario import Callee, CalleeTurn, Scenario
from relay.simulator.twiml import Gather, Pause, Say, read_document
from tests.simulator.test_carrier import ScriptedCustomer, document, open_world, place

SENTENCE = "This call is made by a machine. Press 9 to stop it."  # 3 s
ASKED_AT = "/twilio/key?call=1"


def asking(attributes: str, behind: str = "<Hangup/>") -> str:
    gather = f'<Gather action="{ASKED_AT}" {attributes}><Say>{SENTENCE}</Say></Gather>'
    return f"<Response>{gather}{behind}</Response>"


def interjection(pause_seconds: float, press: str | None = None) -> CalleeTurn:
    """A key pressed during the announcement, or the hang-up."""
    does: dict[str, object] = {"hang_up": True} if press is None else {"press": press}
    return CalleeTurn.model_validate({"when": "announcement", "pause_seconds": pause_seconds, **does})


async def gathered(
    attributes: str, *turns: CalleeTurn, behind: str = "<Hangup/>", after: str = "<Hangup/>"
) -> tuple[ScriptedCustomer, Ledger, float]:
    """A call whose document gathers: the service, the ledger, and how long the call lasted."""
    documents: dict[str, Answer] = {
        "/twiml?call=1": document(asking(attributes, behind)),
        ASKED_AT: document(f"<Response>{after}</Response>"),
        "/twilio/over?call=1": document("<Response/>"),
    }
    customer = ScriptedCustomer(documents)
    scenario = Scenario(callee=Callee(turn=turns))
    async with open_world(customer, scenario) as (carrier, ledger):
        call = place(carrier)
        await call.finished.wait()
        assert ledger.violations == []
        assert call.status == "completed"
        assert call.ended_at is not None
        assert call.answered_at is not None
        return customer, ledger, call.ended_at - call.answered_at


def notes(ledger: Ledger, event: str) -> list[object]:
    return [entry.fields.get("text") for entry in ledger.select("phone", "noted", event)]


async def test_a_key_stops_what_is_said_and_is_posted_at_once(autojump_clock: MockClock) -> None:
    customer, ledger, lasted = await gathered(
        'numDigits="1" timeout="1"', interjection(1.0, "9"), behind="<Say>Unreachable.</Say>"
    )
    assert customer.told("Digits") == ["9"]
    assert customer.told("FinishedOnKey") == [""]
    assert (notes(ledger, "say"), notes(ledger, "said")) == ([SENTENCE], [])
    assert lasted == pytest.approx(1.0, abs=0.1)


async def test_without_a_key_the_next_verb_follows_and_nothing_is_posted(autojump_clock: MockClock) -> None:
    customer, ledger, lasted = await gathered('numDigits="1" timeout="2"', behind="<Pause length='1'/>")
    assert customer.told("Digits") == []
    assert notes(ledger, "said") == [SENTENCE]
    assert lasted == pytest.approx(3.0 + 2.0 + 1.0, abs=0.1)


async def test_the_result_can_be_asked_for_even_when_it_is_empty(autojump_clock: MockClock) -> None:
    customer, *_ = await gathered('numDigits="1" timeout="1" actionOnEmptyResult="true"')
    assert customer.told("Digits") == [""]


async def test_a_key_that_comes_too_late_is_nobodys(autojump_clock: MockClock) -> None:
    customer, *_ = await gathered('numDigits="1" timeout="1"', interjection(4.5, "9"))
    assert customer.told("Digits") == []


@pytest.mark.parametrize(("attributes", "posted"), [("", []), ('finishOnKey=""', ["#"])])
async def test_the_key_that_finishes_is_no_digit_but_stops_what_is_said(
    attributes: str, posted: list[str], autojump_clock: MockClock
) -> None:
    customer, ledger, lasted = await gathered(f'numDigits="1" {attributes}', interjection(1.0, "#"))
    assert customer.told("Digits") == posted
    assert notes(ledger, "said") == []
    assert lasted == pytest.approx(1.0, abs=0.1)


async def test_several_keys_are_waited_for_one_after_the_other(autojump_clock: MockClock) -> None:
    keys = [interjection(1.0, key) for key in "12#3"]
    customer, *_ = await gathered('timeout="2"', *keys)
    assert customer.told("Digits") == ["12"]
    assert customer.told("FinishedOnKey") == ["#"]


async def test_the_callee_may_hang_up_meanwhile(autojump_clock: MockClock) -> None:
    customer, _, lasted = await gathered('numDigits="1"', interjection(1.0), behind="<Pause length='60'/>")
    assert customer.told("Digits") == []
    assert lasted == pytest.approx(1.0, abs=0.1)


async def test_each_further_round_has_its_own_key(autojump_clock: MockClock) -> None:
    again = '<Gather numDigits="1" action="/twilio/over?call=1"><Pause length="3"/></Gather>'
    customer, *_ = await gathered('numDigits="1"', *(interjection(1, key) for key in "12"), after=again)
    assert customer.told("Digits") == ["1", "2"]
    assert [url for _, url, form, _ in customer.posts if "Digits" in form][1].endswith("/twilio/over?call=1")


async def test_rest_can_end_the_call_meanwhile(autojump_clock: MockClock) -> None:
    customer = ScriptedCustomer({"/twiml?call=1": document(asking('numDigits="1" timeout="60"'))})
    async with open_world(customer) as (carrier, _):
        call = place(carrier)
        await trio.sleep(2)
        call.hang_up()
        await call.finished.wait()
        assert call.duration_seconds == 2


def test_a_gather_is_read_with_what_is_said_in_it() -> None:
    inside = '<Gather numDigits="1" finishOnKey="" action="/key"><Say>Hi.</Say><Pause/></Gather><Gather/>'
    verbs, warnings = read_document("text/xml", f"<Response>{inside}</Response>")
    assert warnings == []
    assert verbs == [
        Gather("/key", 1, "", 5, False, (Say("Hi."), Pause(1))),
        Gather(None, None, "#", 5, False),
    ]
