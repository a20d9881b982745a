"""The tools that ship with the relay.

Knows nothing of calls; appointments are kept in memory until there is a ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from relay.tools import Tool, ToolRefused


class Appointments:
    """Booked appointments, in memory: one booking for each day and hour."""

    def __init__(self) -> None:
        self._booked: dict[tuple[str, str], str] = {}

    async def book(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Book a day and hour. Refuses a slot that is taken."""
        await trio.lowlevel.checkpoint()
        slot = (str(arguments["day"]).strip().lower(), str(arguments["time"]).strip().lower())
        if slot in self._booked:
            raise ToolRefused("That time is already taken. Offer another one.")
        number = f"A{len(self._booked) + 1:04d}"
        self._booked[slot] = number
        return {"booked": "yes", "day": slot[0], "time": slot[1], "confirmation_number": number}


async def _after_goodbye(_arguments: Mapping[str, Any]) -> dict[str, str]:
    await trio.lowlevel.checkpoint()
    return {"hanging_up": "after your goodbye"}


async def _at_once(_arguments: Mapping[str, Any]) -> dict[str, str]:
    await trio.lowlevel.checkpoint()
    return {"hanging_up": "now"}


def builtin_tools(appointments: Appointments) -> dict[str, Tool]:
    """All of them, by name; an agent gets those that its profile names."""
    tools = (
        Tool(
            name="end_call",
            description="Hang up. Call it when the conversation is over, then say goodbye in one sentence.",
            parameters={"type": "object", "properties": {}, "required": []},
            run=_after_goodbye,
            ends_call=True,
        ),
        Tool(
            name="mark_do_not_call",
            description="Never call this person again. Call it at once, in silence, when they want no more"
            " calls. A recorded goodbye follows, and the line is closed.",
            parameters={"type": "object", "properties": {}, "required": []},
            run=_at_once,
            opts_out=True,
        ),
        Tool(
            name="book_appointment",
            description="Book an appointment for the person on the phone. Say the day and time back to them.",
            parameters={
                "type": "object",
                "properties": {
                    "day": {
                        "type": "string",
                        "description": "day as the person said it",
                        "examples": ["Tuesday"],
                    },
                    "time": {"type": "string", "description": "time of day", "examples": ["half past two"]},
                },
                "required": ["day", "time"],
            },
            run=appointments.book,
        ),
    )
    return {tool.name: tool for tool in tools}
