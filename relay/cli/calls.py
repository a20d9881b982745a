"""`relay call` and `relay calls`: place calls, look at them, and take their evidence away.

Knows the answers of the operator's API, and nothing of how a call is made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from relay.cli.client import ask, open_client
from relay.cli.terminal import (
    DONE,
    FAILED,
    JSON,
    USAGE,
    CommandFailed,
    complain,
    print_json,
    print_table,
    tell,
)

Purpose = Literal["informational", "collections", "telemarketing"]

calls = App(name="calls", help="Calls of a running service.")


def call(
    to: str,
    *,
    agent: str = "default",
    var: Annotated[tuple[str, ...], Parameter(help="K=V for the agent's templates; may repeat.")] = (),
    record: bool = False,
    machine_detection: Literal["off", "enable", "detect-message-end"] | None = None,
    time_limit: int | None = None,
    purpose: Purpose | None = None,
    state: str | None = None,
    zone: str | None = None,
    json: JSON = False,
) -> int:
    """Place a call through the service at RELAY_URL.

    Parameters
    ----------
    to
        The number to call, in E.164.
    agent
        Which agent speaks.
    record
        Have the carrier record the call.
    machine_detection
        Have the carrier tell people from machines; without it as the agent's profile says.
    time_limit
        Seconds until the call ends, at most RELAY_MAX_CALL_SECONDS.
    purpose
        The agent's own, or a stricter one.
    state
        Where the callee is known to be (US-TX): its hours and rules count besides those of the number.
    zone
        The callee's time zone (America/Chicago), likewise.
    """
    variables = dict(pair.split("=", 1) for pair in var if "=" in pair)
    if len(variables) != len(var):
        complain("--var takes NAME=VALUE")
        return USAGE
    body: dict[str, Any] = {
        "to": to,
        "agent": agent,
        "variables": variables,
        "record": record,
    }
    body |= {"time_limit": time_limit} if time_limit is not None else {}
    given = {"purpose": purpose, "state": state, "zone": zone, "machine_detection": machine_detection}
    body |= {name: value for name, value in given.items() if value is not None}
    placed = ask("POST", "/v1/calls", json=body)
    tell(placed, f"{placed['id']}  {placed['status']}  {placed['sid'] or '-'}", as_json=json)
    return DONE


@calls.command(name="list")
def list_calls(*, limit: int = 20, json: JSON = False) -> int:
    """The newest calls."""
    found = ask("GET", "/v1/calls", params={"limit": limit})
    if json:
        print_json(found)
        return DONE
    rows = (
        (
            *(each["id"], each["to"], each["agent"], each["status"]),
            f"{each['ending']['blame']} {each['ending']['reason']}" if each["ending"] else "",
            f"{each['duration_seconds']:.1f}",
        )
        for each in found["calls"]
    )
    print_table(("id", "to", "agent", "status", "ending", "seconds"), rows, whole=2)
    return DONE


@calls.command(name="show")
def show_call(call_id: str, *, json: JSON = False) -> int:
    """One call with its transcript and timeline."""
    found = ask("GET", f"/v1/calls/{call_id}")
    if json:
        print_json(found)
        return DONE
    ending = found["ending"]
    print(f"{found['id']}  {found['status']}  {found['to']}  {found['duration_seconds']:.1f} s")
    if ending:
        print(f"ended by {ending['blame']}: {ending['reason']}  {found['ending_detail'] or ''}".rstrip())
    for line in found["transcript"]:
        unheard = f" [not heard: {line['unheard']}]" if "unheard" in line else ""
        print(f"  {line['role']:>7}: {line['text']}{' —' if line['interrupted'] else ''}{unheard}")
    if found["first_audio_seconds"] is not None:
        print(
            f"  first sound {found['first_audio_seconds']:.2f} s after the answer{_waits(found['latency'])}"
        )
    if found["cost"]:
        unpriced = [cost["item"] for cost in found["costs"] if cost["amount"] is None]
        amounts = " + ".join(f"{amount} {currency}" for currency, amount in found["cost"].items())
        without = f", without {', '.join(unpriced)}" if unpriced else ""
        print(f"  estimated cost {amounts}{without}")
    for notice in found["notices"]:
        print(f"  carrier {notice['code']}: {notice['message']}")
    return DONE


def _waits(turns: list[dict[str, Any]]) -> str:
    """What the callee waited for answers, and whose share that was."""
    waits = [turn for turn in turns if turn.get("wait_seconds") is not None]
    if not waits:
        return ""
    longest = max(waits, key=lambda turn: float(turn["wait_seconds"]))
    ours = longest["relay_seconds"] + longest["queued_seconds"]
    return f"; longest wait for an answer {longest['wait_seconds']:.2f} s, {ours:.2f} s of it ours"


@calls.command(name="export")
def export_call(call_id: str, *, output: Path | None = None) -> int:
    """Everything on record of one call, as a tar.gz: the evidence.

    Parameters
    ----------
    output
        The file to write; without it ID.tar.gz in this folder, and - for stdout.
    """
    with open_client() as client:
        archive = client.fetch("GET", f"/v1/calls/{call_id}/evidence")
    if output == Path("-"):
        sys.stdout.buffer.write(archive)
        return DONE
    file = output or Path(f"{call_id}.tar.gz")
    try:
        file.write_bytes(archive)
    except OSError as problem:
        raise CommandFailed(f"{file} cannot be written ({problem.strerror})") from None
    print(file)
    return DONE


@calls.command(name="verify")
def verify_call(call_id: str, *, json: JSON = False) -> int:
    """Whether the record of one call is what was written: intact, erased on purpose, or broken."""
    found = ask("GET", f"/v1/calls/{call_id}/verification")
    if json:
        print_json(found)
    elif found["integrity"] != "broken":
        print(f"{call_id}  {found['integrity']}")
    if found["integrity"] == "broken":
        complain(f"the record of {call_id} is not what was written: {found['where']}")
        return FAILED
    return DONE
