"""`relay check`: whether everything is ready to dial, asked of everyone whom a call needs.

Knows how to ask and how to show the answers; knows nothing of calls, and places none.
"""

from __future__ import annotations

import resource
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.carrier import CallerId, Unavailable
from relay.dialer import Dialer, open_dialer
from relay.legs import HandshakeRefused, Leg, open_agent_leg
from relay.opening import OPENING_SECONDS
from relay.outcomes import LegClosed, Refusal, WireError
from relay.probe import Probe
from relay.profiles import DEFAULT_AGENT
from relay.roster import Roster, load_roster, overrides
from relay.script import compose
from relay.service import agent_opener
from relay.sessions import READY_SECONDS
from relay.settings import ConfigurationError, Settings, load_settings
from relay.shapes import is_loopback
from relay.tools import definitions
from relay.web.edge import Limits
from relay.wire import agent, signature, twiml
from relay.wire.carrier_errors import explain

ANSWER_SECONDS = 20.0  # for any one question: two agent sessions, when the first one refuses its voice
SESSION_ENDED_SECONDS = 2.0  # a session that is closed without it is billed for 30 s more
CLOCK_SKEW_SECONDS = 5.0  # more than a slow answer explains
DESCRIPTORS_PER_CALL = 2  # one for each leg
OTHER_DESCRIPTORS = 64  # the store, the log, listeners, requests to Twilio
CHARACTERS_PER_SECOND = 16  # of speech: how long an opening takes
NO_START = b'"relay check"'  # no message of a media stream: the service closes with 1008 and logs a warning
POLICY_VIOLATION = 1008

SERVE = "Start `relay serve` with these settings, and the tunnel or balancer from PUBLIC_URL to it."
UPGRADES = "Have the tunnel or balancer pass WebSockets (HTTP/1.1, Upgrade kept), or try another one."
SESSION = "Mend the agent's file, GREETING or SYSTEM_PROMPT; `relay agents show` prints the session."


class Result(StrEnum):
    """What a question came to. A warning does not keep a call from being placed."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


OK, WARN, FAIL = Result


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `remedy` is empty where there is nothing to mend."""

    what: str
    result: Result
    found: str
    remedy: str = ""


Answer = tuple[Result, str, str]  # a Finding that does not know yet which question it answers
_FirstWord = agent.SessionReady | agent.SessionError


def look_around(settings: Settings) -> list[Finding]:
    """What can be said without asking anybody."""
    remedy = "Change it, or leave it so if it is meant."
    doubts = [Finding("settings", WARN, doubt, remedy) for doubt in settings.warnings()]
    return [
        *(doubts or [Finding("settings", OK, "complete")]),
        *_look_at_agents(settings),
        Finding("descriptors", *_look_at_descriptors(settings)),
    ]


def _look_at_agents(settings: Settings) -> list[Finding]:
    try:
        roster = load_roster(settings)
    except ConfigurationError as problem:
        return [Finding("agents", FAIL, str(problem), "Mend the file: `relay serve` does not start.")]
    return [Finding(f"agent {name}", *_look_at_agent(name, roster, settings)) for name in roster.profiles]


def _look_at_agent(name: str, roster: Roster, settings: Settings) -> Answer:
    session = _compose(name, roster, settings)
    if isinstance(session, Refusal):
        if session.code == "variable-missing":
            return OK, f"{session.message} (`relay call --var NAME=VALUE`)", ""
        return FAIL, session.message, SESSION
    greeting = session.get("greeting", "")
    seconds = len(greeting) / CHARACTERS_PER_SECOND
    found = f"opening of {len(greeting)} characters, about {seconds:.0f} s; {len(roster.tools[name])} tools"
    if seconds > OPENING_SECONDS:
        return WARN, found, f"Shorten it: after {OPENING_SECONDS:g} s the person can talk into it."
    return OK, found if greeting else "stored at AssemblyAI; the carrier speaks the disclosure", ""


def _compose(name: str, roster: Roster, settings: Settings) -> dict[str, Any] | Refusal:
    """The session of a call that brings no variables."""
    return compose(roster.profiles[name], overrides(settings), {}, definitions(roster.tools[name]))


def _look_at_descriptors(settings: Settings) -> Answer:
    needed = DESCRIPTORS_PER_CALL * settings.max_calls + OTHER_DESCRIPTORS + Limits().connections
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return OK, f"{needed} for {settings.max_calls} calls are allowed here", ""
    remedy = f"Serve behind `ulimit -n {needed}` (systemd: LimitNOFILE={needed}), or lower RELAY_MAX_CALLS."
    return FAIL, f"{allowed} allowed here, {needed} needed for {settings.max_calls} calls", remedy


async def ask_signed_webhook(settings: Settings) -> Answer:
    """Whether a webhook signed as Twilio signs comes through PUBLIC_URL to a service that believes it."""
    accounts = settings.require_serving()
    carrier_is_real = not is_loopback(urlsplit(settings.twilio_api_url).hostname)
    if carrier_is_real and is_loopback(urlsplit(accounts.public_url).hostname):
        return FAIL, "Twilio cannot reach a PUBLIC_URL on loopback", "Set the tunnel's https address."
    refusal = await Probe(accounts.public_url, accounts.twilio_auth_token.get_secret_value())()
    if refusal is not None:
        return FAIL, refusal.message, SERVE
    return OK, "accepted, sent from here through PUBLIC_URL", ""


async def ask_unsigned_webhook(settings: Settings) -> Answer:
    """Whether a stranger's webhook is refused."""
    url = twiml.status_url(settings.require_serving().public_url, "probe")
    try:
        async with _open_http() as http:
            answer = await http.post(url, data={"CallStatus": "initiated"})
    except httpx.HTTPError as problem:
        return FAIL, f"PUBLIC_URL cannot be reached ({problem})", SERVE
    if answer.status_code == httpx.codes.FORBIDDEN:
        return OK, "refused with 403", ""
    return FAIL, f"answered with {answer.status_code}, not 403", SERVE


async def ask_stream(settings: Settings) -> Answer:
    """Whether the balancer passes a WebSocket upgrade, and the messages behind it, in both directions."""
    accounts = settings.require_serving()
    url = twiml.stream_url(accounts.public_url)
    headers = {"X-Twilio-Signature": signature.sign(accounts.twilio_auth_token.get_secret_value(), url)}
    try:
        leg = await open_agent_leg(url, headers=headers, tls=ssl.create_default_context())
    except HandshakeRefused as refused:
        if refused.status == httpx.codes.FORBIDDEN:
            return FAIL, "the signed upgrade was refused with 403", "Give `relay serve` the same settings."
        return FAIL, f"the upgrade was answered with {refused.status}, not 101", UPGRADES
    except LegClosed as lost:
        return FAIL, f"the upgrade got no answer ({lost.detail})", SERVE
    code = await _close_code(leg)
    if code == POLICY_VIOLATION:
        return OK, "upgraded with 101, and closed with 1008 for want of a start", ""
    return FAIL, f"upgraded, then closed with {code or 'no close frame'}, not 1008", UPGRADES


async def _close_code(leg: Leg) -> int | None:
    """What the far end closes with when it is told nonsense."""
    try:
        await leg.send_last(NO_START)
        while True:
            await leg.receive()
    except LegClosed as closed:
        return closed.code
    finally:
        await leg.abort()  # noqa: ASYNC102 - closes the socket even where we are cancelled


async def ask_account(settings: Settings) -> Answer:
    """Whether the credentials are those of an account that can dial."""
    async with _open_dialer(settings) as dialer:
        account = await dialer.account()
    if isinstance(account, Unavailable):
        return FAIL, *_sentence(account.sentence)
    if account.status != "active":
        return FAIL, f"the account is {account.status}", "Reactivate it in the Twilio console."
    if account.is_trial:
        found = "a trial account: it calls verified numbers only, ten minutes long, after a notice"
        return WARN, found, "Verify the numbers you will call under Verified Caller IDs, or upgrade."
    return OK, "active", ""


async def ask_caller_id(settings: Settings) -> Answer:
    """Whether the account may show TWILIO_FROM_NUMBER."""
    async with _open_dialer(settings) as dialer:
        caller_id = await dialer.caller_id()
    match caller_id:
        case Unavailable():
            return FAIL, *_sentence(caller_id.sentence)
        case CallerId.OWNED:
            return OK, "a number of the account that can make calls", ""
        case CallerId.VERIFIED:
            return OK, "a verified caller id", ""
        case CallerId.WITHOUT_VOICE:
            return FAIL, "a number without voice", "Set TWILIO_FROM_NUMBER to one that can make calls."
        case CallerId.UNKNOWN:
            return FAIL, *_sentence(explain(21210))


def _open_dialer(settings: Settings) -> AbstractAsyncContextManager[Dialer]:
    accounts = settings.require_serving()
    return open_dialer(
        account_sid=accounts.twilio_account_sid,
        auth_token=accounts.twilio_auth_token.get_secret_value(),
        from_number=accounts.twilio_from_number,
        api_url=settings.twilio_api_url,
    )


def _sentence(sentence: str) -> tuple[str, str]:
    """What is wrong and what to do, of one of the carrier's sentences."""
    found, _, remedy = sentence.rstrip(".").partition("; ")
    return found, f"{remedy[:1].upper()}{remedy[1:]}." if remedy else "Try again; ask Twilio if it stays so."


async def ask_clock(settings: Settings) -> Answer:
    """Whether our clock agrees with the carrier's: by ours a call is looked up that nobody answered for."""
    try:
        async with _open_http() as http:
            answer = await http.get(settings.twilio_api_url)
    except httpx.HTTPError as problem:
        return WARN, f"Twilio's clock could not be asked ({problem})", "Mend the way to Twilio first."
    return judge_clock(answer.headers.get("Date", ""), datetime.now(UTC))


def judge_clock(date: str, now: datetime) -> Answer:
    """Hold our clock against a Date header, which is cut to whole seconds."""
    try:
        ahead_seconds = (now - parsedate_to_datetime(date)).total_seconds() - 0.5
    except (ValueError, TypeError):  # the latter for a date without a zone
        return WARN, "Twilio's answer bears no date to compare with", "Compare this clock with another one."
    if abs(ahead_seconds) <= CLOCK_SKEW_SECONDS:
        return OK, f"within {CLOCK_SKEW_SECONDS:g} s of Twilio's", ""
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return FAIL, f"{abs(ahead_seconds):.0f} s {direction} Twilio's", "Have this machine's clock set by NTP."


async def ask_agent_session(settings: Settings) -> Answer:
    """Whether the agent takes our key and the session of the default agent; billed as a second or two."""
    try:
        session = _compose(DEFAULT_AGENT, load_roster(settings), settings)
    except ConfigurationError:
        return FAIL, "not asked: the agents cannot be read", "Mend the agents first."
    if isinstance(session, Refusal):
        return FAIL, f"not asked: {session.message}", SESSION
    try:
        first = await _open_session(settings, session)
        voice = session.get("output", {}).pop("voice", None)
        if voice is None or isinstance(first, agent.SessionReady) or first.param != "output.voice":
            return _judge_session(first)
        second = _judge_session(await _open_session(settings, session))  # as a call would
    except trio.TooSlowError:
        return FAIL, f"no session.ready within {READY_SECONDS:g} s, when a call is given up", "Try again."
    except (HandshakeRefused, LegClosed, WireError) as problem:
        return FAIL, f"no session ({problem})", "Check ASSEMBLYAI_WS_URL and the network of this machine."
    voices = first.message.partition("Must be one of: ")[2]
    remedy = f"Set AGENT_VOICE, or the agent's voice, to one of: {voices or 'those that the vendor lists'}."
    voiceless = WARN, f"no voice is called {voice}: calls go on with the vendor's own", remedy
    return voiceless if second[0] is OK else second


async def _open_session(settings: Settings, session: Mapping[str, object]) -> _FirstWord:
    """The first word on a session, which is ended at once. Raises what the leg and the wire raise."""
    with trio.fail_after(READY_SECONDS) as patience:
        leg = await agent_opener(settings)(None)
        try:
            await leg.send_last(agent.session_update(session))
            while not isinstance(answer := agent.decode(await leg.receive()), _FirstWord):
                pass
            patience.deadline += SESSION_ENDED_SECONDS
            await _end_session(leg)
            return answer
        finally:
            await leg.abort()  # noqa: ASYNC102 - closes the socket even where we are cancelled


async def _end_session(leg: Leg) -> None:
    """Stop the billing; how the far end takes it is no finding."""
    with trio.move_on_after(SESSION_ENDED_SECONDS):
        try:
            await leg.send_last(agent.session_end())
            while not isinstance(agent.decode(await leg.receive()), agent.SessionEnded):
                pass
        except (LegClosed, WireError):
            pass


def _judge_session(answer: _FirstWord) -> Answer:
    if isinstance(answer, agent.SessionReady):
        if answer.foreign_encoding:
            return FAIL, f"the session would speak {answer.foreign_encoding}", "Ask the vendor for pcmu."
        output = answer.config and answer.config.output
        return OK, f"key and session accepted, voice {(output and output.voice) or 'of the vendor'}", ""
    code = answer.code.lower()
    said = f"{code}: {answer.message}" if answer.message else code
    match code:
        case "unauthorized" | "forbidden":
            return FAIL, said, "Set ASSEMBLYAI_API_KEY to a valid key of the Voice Agent account."
        case "at_capacity" | "concurrency_exceeded" | "server_error" | "internal_error":
            return FAIL, said, "Try again in a minute; if it stays so, have the account's limit raised."
    return FAIL, f"{said} ({answer.param})" if answer.param else said, SESSION


QUESTIONS: Mapping[str, Callable[[Settings], Awaitable[Answer]]] = {
    "signed webhook": ask_signed_webhook,
    "unsigned webhook": ask_unsigned_webhook,
    "stream": ask_stream,
    "Twilio account": ask_account,
    "caller id": ask_caller_id,
    "clock": ask_clock,
    "agent session": ask_agent_session,
}


def _open_http() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=None, trust_env=False)  # noqa: S113 - examine holds the deadline


async def examine(settings: Settings, on_answer: Callable[[Sequence[str]], None]) -> list[Finding]:
    """Ask everybody at once, for at most ANSWER_SECONDS; `on_answer` hears who has not answered yet."""
    awaited = list(QUESTIONS)
    silence = FAIL, f"no answer within {ANSWER_SECONDS:g} s", "Check the network; try again."
    answers: dict[str, Answer] = dict.fromkeys(QUESTIONS, silence)

    async def ask(what: str) -> None:
        with trio.move_on_after(ANSWER_SECONDS):
            answers[what] = await QUESTIONS[what](settings)
        awaited.remove(what)
        on_answer(awaited)

    async with trio.open_nursery() as nursery:
        for what in QUESTIONS:
            nursery.start_soon(ask, what, name=what)
    return [*look_around(settings), *(Finding(what, *answer) for what, answer in answers.items())]


def is_ready(findings: list[Finding]) -> bool:
    """Whether calls may be placed."""
    return all(finding.result is not FAIL for finding in findings)


def to_json(findings: list[Finding]) -> bytes:
    """The report for scripts."""
    report = {"ready": is_ready(findings), "findings": findings}
    return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def to_table(findings: list[Finding]) -> Table:
    """The report for a terminal."""
    styles = {OK: "green", WARN: "yellow", FAIL: "bold red"}
    table = Table("", "what", "found", "remedy", box=None, pad_edge=False)
    for each in findings:
        result = Text(each.result, styles[each.result])
        table.add_row(result, Text(each.what), Text(each.found), Text(each.remedy))
    return table


def run_check(*, as_json: bool = False) -> bool:
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
        findings = trio.run(examine, settings, lambda left: spinner.update(f"waiting for {', '.join(left)}"))
    if as_json:
        sys.stdout.buffer.write(to_json(findings))
    elif console.is_terminal:
        console.print(to_table(findings))
    else:  # a line each, whatever its length
        sys.stdout.writelines("\t".join(astuple(each)) + "\n" for each in findings)
    return is_ready(findings)
