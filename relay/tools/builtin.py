"""The tools that ship with the relay.

Appointments are kept in memory until there is a ledger for them.
"""

from __future__ import annotations

from typing import Annotated

import trio
from pydantic import Field

from relay.tools import Tool, ToolRefused
from relay.tools.functions import tool


@tool(ends_call=True)
async def end_call() -> dict[str, str]:
    """Hang up. Call it when the conversation is over, then say goodbye in one sentence."""
    await trio.lowlevel.checkpoint()
    return {"hanging_up": "after your goodbye"}


@tool(opts_out=True)
async def mark_do_not_call() -> dict[str, str]:
    """Never call this person again. Call it at once, in silence, when they want no more calls. A recorded
    goodbye follows, and the line is closed."""
    await trio.lowlevel.checkpoint()
    return {"hanging_up": "now"}


def appointments() -> Tool:
    """The tool that books, with a book of its own: one booking for each day and hour."""
    booked: dict[tuple[str, str], str] = {}

    @tool
    async def book_appointment(
        day: Annotated[str, Field(description="day as the person said it", examples=["Tuesday"])],
        time: Annotated[str, Field(description="time of day", examples=["half past two"])],
    ) -> dict[str, str]:
        """Book an appointment for the person on the phone. Say the day and time back to them."""
        await trio.lowlevel.checkpoint()
        slot = (day.strip().lower(), time.strip().lower())
        if slot in booked:
            raise ToolRefused("That time is already taken. Offer another one.")
        number = f"A{len(booked) + 1:04d}"
        booked[slot] = number
        return {"booked": "yes", "day": slot[0], "time": slot[1], "confirmation_number": number}

    return book_appointment


def builtin_tools() -> dict[str, Tool]:
    """All of them, by name; an agent gets those that its profile names."""
    return {each.name: each for each in (end_call, mark_do_not_call, appointments())}
