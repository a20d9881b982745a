"""What befell the agent's session, and whether another attempt may mend it.

Knows no trio, no clock, no socket, no log and nothing of what is being said.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.actions import Note, RetryWithoutVoice
from relay.outcomes import Blame, Ending, LegClosed, Reason
from relay.wire import agent

_AUTH_CODES = frozenset({"unauthorized", "forbidden"})
_FATAL_CODES = _AUTH_CODES | {"session_expired", "session_not_found", "session_forbidden"}
# The vendor calls the first two retryable; practice adds the others. None of them says that we did wrong.
_PASSING_CODES = frozenset(
    {"at_capacity", "concurrency_exceeded", "internal_error", "server_error", "agent_init_failed"}
    | {"agent_timeout"}
)
# RFC 6455 and its registry: going away, server fault, restart, try again later. None: no close frame.
_PASSING_CLOSES = frozenset({None, 1001, 1006, 1011, 1012, 1013})
_UNAUTHORIZED, _TOO_MANY, _SERVER_ERROR = (401, 403), 429, 500  # of HTTP
_CODE_CHARACTERS = 64  # of a far end's word in our timeline


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no session (any more): what the call ends with unless another attempt mends it."""

    ending: Ending
    is_passing: bool = False


def socket_lost(lost: LegClosed) -> Fault:
    """The socket went away or could not be opened; only what cannot be understood would come again."""
    return Fault(lost.ending, lost.kind is not Reason.PROTOCOL and lost.code in _PASSING_CLOSES)


def handshake_refused(status: int) -> Fault:
    """The upgrade was answered with another HTTP status than 101."""
    reason = Reason.UNAUTHORIZED if status in _UNAUTHORIZED else Reason.REFUSED
    detail = f"the upgrade was answered with HTTP {status}"
    return Fault(Ending(Blame.AGENT, reason, detail), status == _TOO_MANY or status >= _SERVER_ERROR)


def session_failed(
    message: agent.SessionError | agent.SessionEnded, *, was_ready: bool
) -> Fault | RetryWithoutVoice | Note:
    """The session says so itself: before session.ready every error ends it, later only some do."""
    if isinstance(message, agent.SessionEnded):
        return Fault(Ending(Blame.AGENT, Reason.SESSION_ENDED))
    code = message.code.lower()
    detail = f"{code}: {message.message}" if message.message else code
    if code in _PASSING_CODES:
        return Fault(Ending(Blame.AGENT, Reason.ERROR if was_ready else Reason.REFUSED, detail), True)
    if was_ready:
        if code in _FATAL_CODES:
            return Fault(Ending(Blame.AGENT, Reason.ERROR, detail))
        return Note("session error", {"code": code[:_CODE_CHARACTERS]})
    if code == "invalid_value" and message.param == "output.voice":
        return RetryWithoutVoice(detail)
    if code in _AUTH_CODES:
        return Fault(Ending(Blame.AGENT, Reason.UNAUTHORIZED, detail))
    return Fault(Ending(Blame.AGENT, Reason.REFUSED, detail))
