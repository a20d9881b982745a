"""The relay's own tools that work with the books: appointments, accounts, callbacks.

The calendar, the book of accounts and the person are those of the call; no argument names another one.
"""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import Field

from relay.store import Callback, Slot
from relay.tools import CallContext, Desk, ToolRefused
from relay.tools.functions import tool
from relay.tools.moments import Day, Time, nearest, read_days, read_time, say, say_day

BOOKINGS = 3  # of one call; a person who wants more of them talks to a person
OFFERED = 3  # other times that a refusal names: more cannot be kept in mind on a telephone
LISTED = 8  # times that a look at the calendar names
AHEAD = timedelta(days=60)  # how far a calendar is looked through
LOOKED_AT = 500  # slots at most in one look
CALLBACK_AHEAD = timedelta(days=30)  # a wish that lies further ahead is no callback
ACCOUNTS = 5  # of one number that are told at once

_WEST, _EAST = timedelta(hours=12), timedelta(hours=14)  # wall clocks lie so far from UTC at most


@tool
async def free_appointments(
    call: CallContext, day: Annotated[str | None, Field(description="from this day on", max_length=20)] = None
) -> dict[str, Any]:
    """The next free times of the calendar, from a day on (YYYY-MM-DD or a day of the week) or from now on."""
    desk = _desk(call)
    now = desk.now()
    first = None if day is None else read_days(day, _today(desk))[0]
    found = await desk.books.free_slots(desk.calendar, now, now + AHEAD, LOOKED_AT)
    free = [slot for slot in found if first is None or slot.starts_at.date() >= first]
    return {"today": say_day(_today(desk)), "free": [_offer(slot) for slot in free[:LISTED]]}


@tool
async def book_appointment(day: Day, time: Time, call: CallContext) -> dict[str, Any]:
    """Book an appointment for the person on the phone. Say day, time and confirmation number back to them."""
    desk = _desk(call)
    days, clock, now = read_days(day, _today(desk)), read_time(time), desk.now()
    meant = [datetime.combine(each, clock) for each in days]
    found = await desk.books.free_slots(desk.calendar, now, now + AHEAD, LOOKED_AT)
    for slot in await _around(desk, meant[0], meant[-1], call.call_id):
        if slot.starts_at.replace(tzinfo=None) in meant:
            booked = await desk.books.book(
                desk.calendar, slot.starts_at, call_id=call.call_id, number=call.to, at_most=BOOKINGS
            )
            if booked is not None:
                return {
                    "booked": say(booked.starts_at),
                    **({"note": booked.note} if booked.note else {}),
                    "confirmation_number": booked.confirmation,
                }
    wanted = meant[0].replace(tzinfo=found[0].starts_at.tzinfo if found else UTC)
    offers = nearest((slot.starts_at for slot in found), wanted, OFFERED)
    if not offers:
        raise ToolRefused("Nothing can be booked just now. Say so, and offer that somebody calls back.")
    raise ToolRefused(f"That time cannot be booked. Free are: {'; '.join(map(say, offers))}.")


async def _around(desk: Desk, first: datetime, last: datetime, call_id: str) -> list[Slot]:
    """What is free about these times, or this call's, whatever wall clock they mean; nothing that is past."""
    since = max(first.replace(tzinfo=UTC) - _EAST, desk.now())
    until = last.replace(tzinfo=UTC) + _WEST + timedelta(seconds=1)
    return await desk.books.free_slots(desk.calendar, since, until, LOOKED_AT, or_of=call_id)


def _offer(slot: Slot) -> str:
    return f"{say(slot.starts_at)} ({slot.note})" if slot.note else say(slot.starts_at)


@tool
async def lookup_account(
    call: CallContext,
    account_id: Annotated[
        str | None, Field(description="one account, where the person has several", max_length=64)
    ] = None,
) -> dict[str, Any]:
    """What is on record of the person on the phone."""
    desk = _desk(call)
    found = await desk.books.accounts_of(desk.accounts, call.to)
    if desk.account:  # the call was placed about this one, whatever number it rang at
        about = await desk.books.account(desk.accounts, desk.account)
        found = [] if about is None else [about]
    if account_id is not None:  # an id narrows what may be told; it never reaches another person's
        found = [account for account in found if account.id == account_id.strip()]
    if not found:
        raise ToolRefused("There is no such account of this person. Say so, and do not guess.")
    accounts = [{"id": account.id, **account.fields} for account in found[:ACCOUNTS]]
    return {"accounts": accounts}


@tool
async def schedule_callback(
    day: Day,
    time: Time,
    call: CallContext,
    note: Annotated[str, Field(description="what about, in a few words", max_length=200)] = "",
) -> dict[str, str]:
    """Note that the person wants to be called back, at a time of theirs, where they are. Say it back."""
    desk = _desk(call)
    clock, now = read_time(time), desk.now()
    meant = [
        datetime.combine(each, clock, tzinfo=ZoneInfo(desk.where())) for each in read_days(day, _today(desk))
    ]
    ahead = [instant for instant in meant if now < instant <= now + CALLBACK_AHEAD]
    if not ahead:
        raise ToolRefused(
            f"That is past, or too far ahead: it is {say(now.astimezone(ZoneInfo(desk.where())))} there."
        )
    if why := desk.judge_hour(ahead[0]):
        raise ToolRefused(f"Nobody may be called then. {why} Offer another time.")
    fixed = datetime.fromisoformat(ahead[0].isoformat())  # the offset, not the zone: that is what is kept
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in note).split())
    wish = Callback(
        f"callback_{secrets.token_hex(12)}", call.call_id, desk.agent, call.to, fixed, words, desk.now()
    )
    await desk.books.wish_callback(wish)
    return {"noted": f"{say(fixed)} ({desk.where()})"}


def _today(desk: Desk) -> date:
    return desk.now().astimezone(ZoneInfo(desk.where())).date()


def _desk(call: CallContext) -> Desk:
    if call.desk is None:
        raise LookupError("this call has no books")
    return call.desk
