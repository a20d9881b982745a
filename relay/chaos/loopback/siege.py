"""A service in a process of its own, with a proxy before it and one behind it, and the calls that go through.

Knows the rehearsal's stage and what the service answers, logs and holds open; what is done to it others say.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
import trio

from relay.chaos.loopback.acts import GOODBYE, HUNG_UP, Fate, Leg, Strike
from relay.chaos.loopback.proxy import Passage, Proxy
from relay.outcomes import Blame, Reason
from relay.rehearsal import Performance, Stage, Unplayed, free_port, open_stage
from relay.simulator.ledger import Entry
from relay.simulator.scenario import Scenario

CALL_SECONDS = 60  # the cap of each call: one that nobody ends is a violation, and not waited for
SETTLED_SECONDS = 20.0  # for the service to hold nothing of its calls any more
LOOK_SECONDS = 0.1
LEAVES_SECONDS = 15.0  # behind its last word
SHORT_SECONDS = 1.0
_CALLEE = ("Yes?", "Thank you.", "Hello?", "Anybody there?", "Hello?")
_EXPLANATION = "Your appointment is on Monday at three in the afternoon. Please bring your card with you."
_AGENT = """\
purpose = "informational"
disclosure = "This is an automated call."
greeting = "Hello?"
system_prompt = "You are the assistant of {{business}}. Be brief."
tools = ["book_appointment", "end_call", "mark_do_not_call"]
"""


class Outcome(msgspec.Struct, frozen=True):
    """One call and what became of it."""

    act: str
    what: str  # befell it
    call_id: str
    ending: str  # blame and reason
    noticed_seconds: float | None  # from what befell it to the end of its record
    closed_seconds: float | None  # and until the other leg was closed
    violations: tuple[str, ...]


@dataclass
class Blow:
    """When something befell a call; both clocks, since records are kept by the one on the wall."""

    at: float = 0.0
    wall: datetime | None = None

    def falls(self) -> None:
        """Now."""
        self.at, self.wall = trio.current_time(), datetime.now(UTC)


@dataclass(frozen=True)
class Trial:
    """What is to befall one call, and what may become of it."""

    what: str
    fates: frozenset[Fate]
    within_seconds: float | None = None  # from the blow to the end; None: that is no matter
    strike: Strike | None = None
    ring_seconds: float = 0.1
    is_short: bool = False  # the callee hangs up behind its first word
    blow: Blow = field(default_factory=Blow)


class Siege:
    """A service that is up, and all that is asked of it in one act."""

    def __init__(self, act: str, stage: Stage, port: int, phones: Proxy, agents: Proxy, folder: Path) -> None:
        assert stage.process is not None
        self.act = act
        self.stage = stage
        self.port = port  # on which the service listens
        self.process = stage.process  # the newest one
        self.folder = folder
        self.outcomes: list[Outcome] = []
        self.conversing: Counter[str] = Counter()  # calls in which the callee was forwarded, by their names
        self._proxies: dict[Leg, Proxy] = {"phone": phones, "agent": agents}
        self._calls = 0

    # ---- calls -----------------------------------------------------------------------------------

    async def play(self, trial: Trial) -> Outcome:
        """One call from its order to its record."""
        self._calls += 1
        name = f"Desk {self._calls}"
        scenario = _talk(name, trial)
        begun = trio.Event()

        def watch(entry: Entry) -> None:
            if (entry.side, entry.event) == ("phone", "start"):
                begun.set()
            elif entry.event == "input.audio":
                self.conversing[name] += 1

        played: Performance | str = "was never played"
        async with trio.open_nursery() as nursery:
            if trial.strike is not None:
                nursery.start_soon(self._strike, trial.strike, trial.blow, scenario, name, begun)
            try:
                played = await self.stage.play(scenario, on_entry=watch)
            except Unplayed as problem:
                played = str(problem)
            nursery.cancel_scope.cancel()
        outcome = self._judge(trial, played, scenario, name)
        self.outcomes.append(outcome)
        return outcome

    async def wait_conversing(self, calls: int) -> None:
        """Return when so many calls have come so far that the callee is heard."""
        while len(self.conversing) < calls:  # noqa: ASYNC110 - a ledger is no event
            await trio.sleep(LOOK_SECONDS)

    async def wait_placed(self, calls: int) -> None:
        """Return when the carrier has so many calls."""
        while len(self.stage.carrier.calls) < calls:  # noqa: ASYNC110 - an account is no event
            await trio.sleep(LOOK_SECONDS)

    async def wait_over(self, calls: int) -> None:
        """Return when the carrier has ended the newest so many calls."""
        while not all(call.is_over for call in list(self.stage.carrier.calls.values())[-calls:]):  # noqa: ASYNC110
            await trio.sleep(LOOK_SECONDS)

    async def _strike(
        self, strike: Strike, blow: Blow, scenario: Scenario, name: str, begun: trio.Event
    ) -> None:
        await begun.wait()
        await trio.sleep(strike.at)
        passage = self._passage(strike.leg, scenario, name)
        if passage is not None and passage.closed_at is None:
            blow.falls()
            passage.befall(strike.kind, strike.seconds)

    def _passage(self, leg: Leg, scenario: Scenario, name: str) -> Passage | None:
        """The newest connection of this leg of this call: whoever opens one says in its first words whose."""
        sids = [sid for sid, call in self.stage.carrier.calls.items() if call.scenario is scenario]
        needle = f"assistant of {name}." if leg == "agent" else f'"callSid":"{sids[-1] if sids else None}"'
        for passage in reversed(self._proxies[leg].passages):
            if needle in _first_words(passage.opening).replace('": "', '":"'):
                return passage
        return None

    def _judge(self, trial: Trial, played: Performance | str, scenario: Scenario, name: str) -> Outcome:
        if isinstance(played, str):
            return Outcome(self.act, trial.what, "", "none", None, None, (played,))
        record = played.record
        found = record.get("ending") or {"blame": "nobody", "reason": "unknown"}
        broken = list(played.ledger.violations) if trial.blow.wall is None else []
        if played.answer_status != 201:
            broken.append(f"POST /v1/calls said {played.answer_status}: {dict(played.answer)}")
        elif (Blame(found["blame"]), Reason(found["reason"])) not in trial.fates:
            broken.append(f"ended as {found['blame']}/{found['reason']} ({found.get('detail', '')})")
        if played.call is not None and not played.call.is_over:
            broken.append(f"is {played.call.status} for the carrier")
        noticed = closed = None
        if trial.blow.wall is not None and record.get("ended_at"):
            noticed = (datetime.fromisoformat(record["ended_at"]) - trial.blow.wall).total_seconds()
            if trial.within_seconds is not None and noticed > trial.within_seconds:
                broken.append(f"ended {noticed:.1f} s after it, at most {trial.within_seconds:g} s may be")
            closed = self._closed_seconds(trial, scenario, name)
        return Outcome(
            self.act,
            trial.what,
            str(record.get("id", "")),
            f"{found['blame']} {found['reason']}",
            noticed,
            closed,
            tuple(broken),
        )

    def _closed_seconds(self, trial: Trial, scenario: Scenario, name: str) -> float | None:
        """From the blow until the service had closed the leg that was not struck."""
        if trial.strike is None:
            return None
        other = self._passage("agent" if trial.strike.leg == "phone" else "phone", scenario, name)
        return None if other is None or other.closed_at is None else other.closed_at - trial.blow.at

    # ---- the service -----------------------------------------------------------------------------

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged, whichever process."""
        lines = (self.folder / "relay.log").read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]

    @property
    def open_legs(self) -> int:
        """How many legs it still holds, by what the kernel says of its sockets."""
        proc = Path(f"/proc/{self.process.pid}")
        held = {str(one.readlink()) for one in (proc / "fd").iterdir()}
        rows = [line.split() for line in (proc / "net/tcp").read_text().splitlines()[1:]]
        far_ports = {int(row[2].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in held}
        legs = [
            *(each for each in self._proxies["phone"].passages if each.opening.startswith(b"GET /twilio-")),
            *self._proxies["agent"].passages,
        ]
        return len(far_ports & {leg.port for leg in legs})

    async def settled(self, expected_errors: frozenset[str] = frozenset()) -> list[str]:
        """What is wrong with the service when all calls are over: nothing of them should be left."""
        if self.process.returncode is not None:
            return [f"the service has gone, with {self.process.returncode}"]
        with trio.move_on_after(SETTLED_SECONDS):
            while self.open_legs:  # noqa: ASYNC110 - the kernel does not announce it
                await trio.sleep(LOOK_SECONDS)
        broken = [f"{self.open_legs} legs are open"] if self.open_legs else []
        ready = await self.stage.http.get("/readyz")
        if ready.json().get("calls") != 0:
            broken.append(f"readyz says {ready.text}")
        ended = Counter(line.get("call_id") for line in self.log if line["event"] == "call ended")
        broken += [
            f"{outcome.call_id} ended {ended[outcome.call_id]} times in the log"
            for outcome in self.outcomes
            if outcome.call_id and ended[outcome.call_id] != 1
        ]
        broken += [
            f"logged as an error: {line['event']} {line.get('detail', line.get('exception', ''))}"
            for line in self.log
            if line["level"] in ("error", "critical") and line["event"] not in expected_errors
        ]
        return broken


@asynccontextmanager
async def open_siege(act: str, folder: Path, seed: int, **settings: str) -> AsyncIterator[Siege]:
    """A service under siege; `settings` are further environment variables of it."""
    rng = random.Random(seed)
    agents = folder / "agents"
    agents.mkdir(parents=True)
    (agents / "default.toml").write_text(_AGENT, encoding="utf-8")
    port, agent_port = free_port(), free_port()
    before = Proxy(port, rng, is_dialled=False)
    behind = Proxy(agent_port, rng, is_dialled=True)
    async with trio.open_nursery() as nursery:
        public = await nursery.start(before.serve)
        beyond = await nursery.start(behind.serve)
        surroundings = {
            "PUBLIC_URL": f"http://127.0.0.1:{public}",
            "RELAY_BIND": f"127.0.0.1:{port}",
            "ASSEMBLYAI_WS_URL": f"ws://127.0.0.1:{beyond}/v1/ws",
            "RELAY_AGENTS_DIR": str(agents),
            "RELAY_MAX_CALL_SECONDS": str(CALL_SECONDS),
        }
        async with open_stage(
            folder,
            agent_port,
            seed=seed,
            synthesise=False,
            own_process=True,
            **surroundings | settings,
        ) as stage:
            yield Siege(act, stage, port, before, behind, folder)
        nursery.cancel_scope.cancel()


def _talk(name: str, trial: Trial) -> Scenario:
    """A call of one question, one tool and a goodbye, a dozen seconds long.

    The callee has more turns than it takes, and hangs up at last: what is lost to a fault may have been one.
    """
    words = _CALLEE[:1] if trial.is_short else _CALLEE
    says: list[dict[str, Any]] = [{"say": word, "pause_seconds": 0.3} for word in words]
    patience_seconds = SHORT_SECONDS if trial.is_short else LEAVES_SECONDS
    leaves = {"when": "answered", "pause_seconds": patience_seconds, "hang_up": True}
    booking = {"name": "book_appointment", "arguments": {"day": name, "time": "3"}}
    return Scenario.model_validate(
        {
            "title": name,
            "call": {"variables": {"business": name}},
            "carrier": {"ring_seconds": trial.ring_seconds},
            "callee": {"turn": [*says, leaves]},
            "agent": {
                "commit_seconds": 0.3,
                "turn": [
                    {"tool": booking, "reply": _EXPLANATION},
                    {"tool": {"name": "end_call"}, "reply": "Goodbye now."},
                ],
            },
        }
    )


def _first_words(opening: bytes) -> str:
    """The messages that a WebSocket's client sent first, unmasked (RFC 6455, section 5.2)."""
    request, _, rest = opening.partition(b"\r\n\r\n")
    words = []
    while request.startswith(b"GET ") and len(rest) > 6:
        size, at = rest[1] & 0x7F, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(rest[2:at])
        key, masked = rest[at : at + 4], rest[at + 4 : at + 4 + size]
        if len(masked) < size:
            break
        words.append(bytes(byte ^ key[place % 4] for place, byte in enumerate(masked)))
        rest = rest[at + 4 + size :]
    return b"\n".join(words).decode(errors="replace")


def in_peace() -> Trial:
    """A call that nothing befalls."""
    return Trial("nothing", frozenset({GOODBYE}))


def in_short() -> Trial:
    """A call that nothing befalls, and that the callee soon leaves."""
    return Trial("nothing, in short", frozenset({HUNG_UP}), is_short=True)


def of_strike(strike: Strike) -> Trial:
    """A call one of whose connections is struck."""
    return Trial(f"{strike.leg} {strike.kind}", strike.fates, strike.within_seconds, strike)
