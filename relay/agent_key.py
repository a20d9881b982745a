"""Whether the agent takes our key: a call that was refused for it stops new dials until a probe gets through.

Knows nothing of calls but how they ended; asks the agent by opening a socket, as a call does.
"""

from __future__ import annotations

from typing import NoReturn

import trio

from relay.agent_half import OpenAgent
from relay.handshake import HandshakeRefused
from relay.outcomes import Blame, Ending, LegClosed, Reason, Refusal, WireError
from relay.wire import agent

RETRY_SECONDS = 60.0  # between two probes: a key is mended by hand
VERDICT_SECONDS = 2.0  # a bad key is refused right behind the 101; a good one gets no word before ours


class AgentKey:
    """Remembers the last verdict on the key; there is none before the first call."""

    def __init__(self, open_agent: OpenAgent) -> None:
        self.refusal: Refusal | None = None
        self._open_agent = open_agent
        self._refused = trio.Event()

    def judge(self, ending: Ending, *, had_session: bool) -> None:
        """Learn from a call: it was refused for the key, or it had a session and the key is good."""
        if (ending.blame, ending.reason) == (Blame.AGENT, Reason.UNAUTHORIZED):
            self.refusal = Refusal(
                "agent-key", "AssemblyAI refuses our key: check ASSEMBLYAI_API_KEY and the account"
            )
            self._refused.set()
        elif had_session:
            self._accept()

    async def watch(self) -> NoReturn:
        """While the key is refused, ask again and again, so that nobody has to tell us when it is good."""
        while True:
            await self._refused.wait()
            await trio.sleep(RETRY_SECONDS)
            if self.refusal is not None and await self._is_good():  # else a call has told us by now
                self._accept()

    def _accept(self) -> None:
        self.refusal = None
        if self._refused.is_set():  # one that is not is being waited for
            self._refused = trio.Event()

    async def _is_good(self) -> bool:
        """Billed as two seconds where it is; no session is opened."""
        try:
            leg = await self._open_agent(None)
        except (LegClosed, HandshakeRefused):
            return False
        is_good = True
        try:
            with trio.move_on_after(VERDICT_SECONDS):
                is_good = not isinstance(agent.decode(await leg.receive()), agent.SessionError)
        except (LegClosed, WireError):
            is_good = False
        await leg.close()
        return is_good
