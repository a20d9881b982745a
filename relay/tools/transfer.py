"""Handing the call over to a person: the agent says a name, the profile says whose number that is.

Knows no number: none reaches the agent, and no argument is one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import trio
from pydantic import BaseModel, ConfigDict, Field, create_model

from relay.tools import CallContext, Tool

DESCRIPTION = (
    "Put the person through to somebody else. Call it when they ask for a person or you cannot help, then "
    "say in one short sentence whom you are putting them through to. You hear of it only if that fails."
)


def transfer_call(names: Collection[str]) -> Tool:
    """The tool that knows these names, in the order in which the profile has them."""
    known: Any = Literal[tuple(names)]
    arguments = create_model(
        "transfer_call",
        __config__=ConfigDict(extra="forbid"),
        to=(known, Field(description="whom to")),
    )

    async def run(_call: CallContext, given: BaseModel) -> Any:
        await trio.lowlevel.checkpoint()
        return {"putting_through_to": given.model_dump()["to"], "when": "after your sentence"}

    return Tool("transfer_call", DESCRIPTION, arguments, run, transfers=True)
