"""The tools that ship with the relay; an agent gets those that its profile names.

Knows no ledger and no other call; what a tool works with comes with the call.
"""

from __future__ import annotations

from collections.abc import Collection

import trio

from relay.tools import Tool
from relay.tools.booking import book_appointment, free_appointments, lookup_account, schedule_callback
from relay.tools.functions import tool
from relay.tools.keys import send_digits
from relay.tools.transfer import transfer_call


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


BUILTIN = (
    book_appointment,
    free_appointments,
    lookup_account,
    schedule_callback,
    send_digits,
    end_call,
    mark_do_not_call,
)


def builtin_tools(transfers: Collection[str] = ()) -> dict[str, Tool]:
    """All of them, by name; that which transfers only where there are names to transfer to."""
    tools = [*BUILTIN, transfer_call(transfers)] if transfers else BUILTIN
    return {each.name: each for each in tools}
