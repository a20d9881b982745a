"""`relay check`: whether everything is ready to dial, asked of everyone whom a call needs.

Knows who is asked and for how long; knows nothing of calls, and places none.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import astuple
from functools import partial

import trio
from rich.console import Console

from relay.check import account, address, session
from relay.check.findings import FAIL, Answer, Finding, is_ready, to_json, to_table
from relay.check.here import look_around
from relay.settings import ConfigurationError, Settings, load_settings

ANSWER_SECONDS = 20.0  # for any one question: two agent sessions, when the first one refuses its voice

Question = Callable[[Settings], Awaitable[Answer]]

QUESTIONS: Mapping[str, Question] = {
    "signed webhook": address.ask_signed_webhook,
    "unsigned webhook": address.ask_unsigned_webhook,
    "stream": address.ask_stream,
    "new calls": address.ask_readiness,
    "Twilio account": account.ask_account,
    "caller id": account.ask_caller_id,
    "country": account.ask_country,
    "clock": account.ask_clock,
    "agent session": session.ask_agent_session,
}


async def examine(
    settings: Settings, on_answer: Callable[[Sequence[str]], None], *, hold_seconds: float = 0.0
) -> list[Finding]:
    """Ask everybody at once, for at most ANSWER_SECONDS; `on_answer` hears who has not answered yet.

    With `hold_seconds` a stream is held open for so long besides.
    """
    questions = {what: (question, ANSWER_SECONDS) for what, question in QUESTIONS.items()}
    if hold_seconds:
        hold = partial(address.ask_long_stream, seconds=hold_seconds)
        questions["long stream"] = hold, ANSWER_SECONDS + hold_seconds
    awaited = list(questions)
    answers: dict[str, Answer] = {
        what: (FAIL, f"no answer within {seconds:g} s", "Check the network; try again.")
        for what, (_, seconds) in questions.items()
    }

    async def ask(what: str, question: Question, seconds: float) -> None:
        with trio.move_on_after(seconds):
            answers[what] = await question(settings)
        awaited.remove(what)
        on_answer(awaited)

    async with trio.open_nursery() as nursery:
        for what, (question, seconds) in questions.items():
            nursery.start_soon(ask, what, question, seconds, name=what)
    return [*look_around(settings), *(Finding(what, *answer) for what, answer in answers.items())]


def run_check(*, hold_seconds: float, as_json: bool = False) -> bool:
    """Ask, show the findings, and say whether calls may be placed.

    Raises ConfigurationError where the settings leave nothing to ask; as JSON that is a report too.
    """
    try:
        settings = load_settings()
        settings.require_serving()
    except ConfigurationError as problem:
        if as_json:
            unusable = [Finding("settings", FAIL, *each.split(": ", 1)) for each in problem.problems]
            sys.stdout.buffer.write(to_json(unusable))
        raise
    console = Console(stderr=as_json)
    with console.status("asking everybody") as spinner:
        ask = partial(examine, hold_seconds=hold_seconds)
        findings = trio.run(ask, settings, lambda left: spinner.update(f"waiting for {', '.join(left)}"))
    if as_json:
        sys.stdout.buffer.write(to_json(findings))
    elif console.is_terminal:
        console.print(to_table(findings))
    else:  # a line each, whatever its length
        sys.stdout.writelines("\t".join(astuple(each)) + "\n" for each in findings)
    return is_ready(findings)
