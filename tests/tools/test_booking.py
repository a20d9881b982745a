"""The tools that work with the books: real slots, one's own account, and a wish at an allowed hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import orjson
import pytest

from relay.compliance import DialRequest, Purpose, load_rulebook
from relay.gatekeeper import Gatekeeper
from relay.profiles import Profile
from relay.script import scope_of
from relay.store import Account, MemoryStore, Slot
from relay.tools import CallContext, Desk, Toolbox, ToolOutcome
from relay.tools.builtin import builtin_tools

NUMBER, OTHER = "+12025550143", "+13125550199"
NOW = datetime(2026, 3, 2, 17, 30, tzinfo=UTC)  # a Monday, half past twelve in Washington
EASTERN = timezone(timedelta(hours=-5))
TUESDAY = datetime(2026, 3, 3, 10, tzinfo=EASTERN)


class House:
    """The books of one call, and what a tool says there."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.books = self.store.books
        self.now = NOW
        self.call_id = "call_1"
        self.account = ""  # that the call is about

    async def ask(self, tool: str, /, **given: Any) -> ToolOutcome:
        call = CallContext(self.call_id, NUMBER, {}, desk=self.desk(account=self.account))
        return await Toolbox(builtin_tools().values(), call).run(tool, given, "run_1")

    def desk(self, **changes: Any) -> Desk:
        plea = DialRequest("call_1", 0, NUMBER, OTHER, Purpose.INFORMATIONAL, "Acme")
        gate = Gatekeeper(self.store, load_rulebook(), clock=lambda: self.now)
        wanted: dict[str, Any] = {
            "books": self.books,
            "agent": "default",
            "calendar": "lakeside",
            "accounts": "patients",
            "account": "",
            "where": partial(gate.where, plea),
            "now": lambda: self.now,
            "judge_hour": partial(gate.judge_hour, plea),
        }
        return Desk(**wanted | changes)


@pytest.fixture
def house() -> House:
    return House()


def told(outcome: ToolOutcome) -> dict[str, Any]:
    assert not outcome.is_error, outcome.result
    found: dict[str, Any] = orjson.loads(outcome.result)
    return found


# ---- appointments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", ["2026-03-03", "Tuesday", "tuesday "])
@pytest.mark.parametrize("time", ["10:00"])
async def test_a_time_that_is_free_is_booked_by_the_clock_of_the_place(
    house: House, day: str, time: str
) -> None:
    await house.books.open_slots([Slot("lakeside", TUESDAY, "Doctor Lee")])
    answer = told(await house.ask("book_appointment", day=day, time=time))
    (slot,) = await house.books.slots(0, 10)
    assert answer == {
        "booked": "Tuesday 2026-03-03 10:00",
        "note": "Doctor Lee",
        "confirmation_number": slot.confirmation,
    }
    assert (slot.call_id, slot.number) == ("call_1", NUMBER)


async def test_a_time_that_is_taken_is_refused_with_what_is_free_nearby(house: House) -> None:
    hours = [TUESDAY + timedelta(hours=hour) for hour in (0, 1, 2, 26, 72)]
    await house.books.open_slots([Slot("lakeside", hour) for hour in hours])
    told(await house.ask("book_appointment", day="Tuesday", time="10:00"))
    house.call_id = "call_2"
    refused = await house.ask("book_appointment", day="Tuesday", time="10:00")
    assert refused == ToolOutcome(
        "That time cannot be booked. Free are: Tuesday 2026-03-03 11:00; Tuesday 2026-03-03 12:00; "
        "Wednesday 2026-03-04 12:00.",
        is_error=True,
    )


async def test_to_ask_twice_for_one_time_is_one_booking(house: House) -> None:
    await house.books.open_slots([Slot("lakeside", TUESDAY)])
    first = told(await house.ask("book_appointment", day="Tuesday", time="10:00"))
    assert told(await house.ask("book_appointment", day="2026-03-03", time="10:00")) == first


async def test_a_time_that_is_past_cannot_be_booked(house: House) -> None:
    await house.books.open_slots([Slot("lakeside", TUESDAY)])
    house.now = TUESDAY + timedelta(minutes=1)
    refused = await house.ask("book_appointment", day="Tuesday", time="10:00")
    assert (refused.is_error, "Nothing can be booked" in refused.result) == (True, True)


@pytest.mark.parametrize(
    ("day", "time"), [("someday", "10:00"), ("Tuesday", "tennish"), ("Tuesday", "25:00")]
)
async def test_a_day_that_cannot_be_read_is_asked_for_again(house: House, day: str, time: str) -> None:
    refused = await house.ask("book_appointment", day=day, time=time)
    assert refused.is_error
    assert "YYYY-MM-DD" in refused.result


async def test_the_next_free_times_are_told_from_a_day_on(house: House) -> None:
    hours = [TUESDAY + timedelta(days=day) for day in (0, 1, 70)]
    await house.books.open_slots([Slot("lakeside", hour) for hour in hours])
    assert told(await house.ask("free_appointments")) == {
        "today": "Monday 2026-03-02",
        "free": ["Tuesday 2026-03-03 10:00", "Wednesday 2026-03-04 10:00"],
    }
    assert told(await house.ask("free_appointments", day="Wednesday"))["free"] == [
        "Wednesday 2026-03-04 10:00"
    ]


async def test_another_calendar_is_out_of_reach_of_whatever_is_said(house: House) -> None:
    await house.books.open_slots([Slot("harbour", TUESDAY)])
    for arguments in (
        {"day": "Tuesday", "time": "10:00"},
        {"day": "Tuesday", "time": "10:00", "calendar": "harbour"},
        {"day": "harbour", "time": "10:00"},
    ):
        assert (await house.ask("book_appointment", **arguments)).is_error
    assert (await house.books.slots(0, 10))[0].is_free


# ---- accounts ----------------------------------------------------------------------------------------------


@pytest.fixture
async def accounts(house: House) -> None:
    await house.books.keep_accounts(
        [
            Account("patients", "A1", NUMBER, {"name": "Ada"}),
            Account("patients", "A2", NUMBER, {"name": "Ben"}),
            Account("patients", "B7", OTHER, {"name": "Eve", "balance": "900"}),
            Account("debtors", "D1", NUMBER, {"owes": "12"}),
        ]
    )


async def test_the_person_at_the_number_is_told_what_is_theirs(house: House, accounts: None) -> None:
    both = told(await house.ask("lookup_account"))
    assert both == {"accounts": [{"id": "A1", "name": "Ada"}, {"id": "A2", "name": "Ben"}]}
    one = told(await house.ask("lookup_account", account_id="A2"))
    assert one == {"accounts": [{"id": "A2", "name": "Ben"}]}


async def test_an_account_of_somebody_else_is_as_unknown_as_one_that_does_not_exist(
    house: House, accounts: None
) -> None:
    refused = await house.ask("lookup_account", account_id="A9")
    assert refused.is_error
    for said in ("B7", "D1", "' OR 1=1 --", "%", "B7 ", "patients/B7"):
        assert await house.ask("lookup_account", account_id=said) == refused


@pytest.mark.parametrize("argument", ["number", "to", "book", "accounts", "desk", "call", "account"])
async def test_no_argument_names_another_person_or_book(house: House, accounts: None, argument: str) -> None:
    refused = await house.ask("lookup_account", **{argument: OTHER})
    assert refused.is_error
    assert "Eve" not in refused.result


async def test_a_call_that_was_placed_about_an_account_reaches_that_one_alone(
    house: House, accounts: None
) -> None:
    house.account = "B7"
    one = told(await house.ask("lookup_account"))
    assert one == {"accounts": [{"id": "B7", "name": "Eve", "balance": "900"}]}
    assert (await house.ask("lookup_account", account_id="A1")).is_error
    house.account = "lost"
    assert (await house.ask("lookup_account")).is_error


def profile(**scope: str) -> Profile:
    return Profile.model_validate(
        {
            "name": "clinic",
            "purpose": "informational",
            "disclosure": "Hello, this is the automated assistant of a clinic.",
            "system_prompt": "Be brief.",
            "scope": scope,
        }
    )


def test_whose_data_it_is_comes_from_the_profile_and_the_request() -> None:
    scope = scope_of(profile(calendar="{{business}}", account="{{case}}"), {"business": "Lee", "case": "7"})
    assert (scope.calendar, scope.accounts, scope.account) == ("Lee", "clinic", "7")


# ---- callbacks ---------------------------------------------------------------------------------------------


async def test_a_wish_is_kept_with_the_hour_of_the_person(house: House) -> None:
    answer = told(await house.ask("schedule_callback", day="Tuesday", time="15:30", note="the\x00 crown\n"))
    assert answer == {"noted": "Tuesday 2026-03-03 15:30 (America/New_York)"}
    (wish,) = await house.books.callbacks(0, 10, open_only=True)
    assert (wish.number, wish.agent, wish.note) == (NUMBER, "default", "the crown")
    assert wish.at.isoformat() == "2026-03-03T15:30:00-05:00"


@pytest.mark.parametrize(
    ("day", "time", "says"),
    [
        ("Tuesday", "22:15", "Nobody may be called then. It is Tuesday 22:15 in America/New_York."),
        ("2026-03-01", "15:00", "That is past, or too far ahead: it is Monday 2026-03-02 12:30 there."),
        ("2027-03-01", "15:00", "too far ahead"),
        ("2026-03-02", "12:29", "That is past"),
    ],
)
async def test_a_wish_for_an_hour_at_which_nobody_may_be_called_is_refused(
    house: House, day: str, time: str, says: str
) -> None:
    refused = await house.ask("schedule_callback", day=day, time=time)
    assert refused.is_error
    assert says in refused.result
    assert await house.books.callbacks(0, 10, open_only=False) == []


async def test_a_wish_is_of_the_number_that_was_called_whatever_is_said(house: House) -> None:
    refused = await house.ask("schedule_callback", day="Tuesday", time="15:00", number=OTHER)
    assert refused.is_error
    told(await house.ask("schedule_callback", day="Tuesday", time="15:00", note=f"call {OTHER} instead"))
    (wish,) = await house.books.callbacks(0, 10, open_only=True)
    assert wish.number == NUMBER
