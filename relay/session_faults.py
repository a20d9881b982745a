"""What it means for the call that the agent's session reports an error or ends by itself.

Knows no trio, no clock, no socket, no log and nothing of what is being said.
"""

from __future__ import annotations

from relay.actions import Action, EndCall, Note, RetryWithoutVoice
from relay.outcomes import Blame, Ending, Reason
from relay.wire import agent

_AUTH_CODES = frozenset({"unauthorized", "forbidden"})
_FATAL_CODES = _AUTH_CODES | {"session_expired", "session_not_found", "session_forbidden"}
_CODE_CHARACTERS = 64  # of a far end's word in our timeline


def session_failed(message: agent.SessionError | agent.SessionEnded, *, was_ready: bool) -> Action:
    """What follows: before session.ready the end or another try, later only a fatal error ends the call."""
    if isinstance(message, agent.SessionEnded):
        return EndCall(Ending(Blame.AGENT, Reason.SESSION_ENDED))
    code = message.code.lower()
    detail = f"{code}: {message.message}" if message.message else code
    if not was_ready:
        if code == "invalid_value" and message.param == "output.voice":
            return RetryWithoutVoice(detail)
        if code in _AUTH_CODES:
            return EndCall(Ending(Blame.AGENT, Reason.UNAUTHORIZED, detail))
        return EndCall(Ending(Blame.AGENT, Reason.REFUSED, detail))
    if code in _FATAL_CODES:
        return EndCall(Ending(Blame.AGENT, Reason.ERROR, detail))
    return Note("session error", {"code": code[:_CODE_CHARACTERS]})
