"""Pressing keys on a call: for voice menus, extensions and codes.

Knows no tone; the call sounds them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from relay.tools import CallContext, ToolRefused
from relay.tools.functions import tool

KEYS_SECONDS = 25.0  # 32 keys take 6.4 s, as many pauses 16 s


@tool(seconds=KEYS_SECONDS)
async def send_digits(
    digits: Annotated[
        str,
        Field(
            description="keys 0-9, * and #; w waits half a second",
            pattern=r"^[0-9*#w]{1,32}$",
            examples=["ww1234#"],
        ),
    ],
    call: CallContext,
) -> dict[str, int]:
    """Press keys on the telephone, such as the choice in a menu. Say nothing before they are through."""
    if not await call.press(digits):
        raise ToolRefused("The keys could not be pressed just now. Try once more, or go on without.")
    return {"pressed": len(digits)}
