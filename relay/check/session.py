"""Whether the agent takes our key and the session of the default agent.

Knows one session's beginning and end; plays and hears nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

from relay.check.findings import FAIL, OK, WARN, Answer
from relay.check.here import SESSION, compose_without_variables
from relay.handshake import HandshakeRefused
from relay.legs import Leg
from relay.outcomes import LegClosed, Refusal, WireError
from relay.profiles import DEFAULT_AGENT
from relay.roster import Roster
from relay.service import agent_opener
from relay.sessions import READY_SECONDS
from relay.settings import ConfigurationError, Settings
from relay.wire import agent

SESSION_ENDED_SECONDS = 2.0  # a session that is closed without it is billed for 30 s more

_FirstWord = agent.SessionReady | agent.SessionError


async def ask_agent_session(settings: Settings) -> Answer:
    """Whether the agent takes our key and the session of the default agent; billed as a second or two."""
    try:
        session = compose_without_variables(DEFAULT_AGENT, Roster(settings), settings)
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
    key = settings.require_serving().assemblyai_api_key.get_secret_value()
    with trio.fail_after(READY_SECONDS) as patience:
        leg = await agent_opener(settings, key)(None)
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
