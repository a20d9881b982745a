"""The acts of a siege: struck connections, a service that is stopped or killed, a full disk, a pulled cable.

Knows what is done and what may come of it; how a call is played and judged the siege knows.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import trio

from relay.chaos.loopback.acts import GOODBYE, HUNG_UP, Fate, draw_strikes
from relay.chaos.loopback.namespaces import fill, set_loopback, small_disk
from relay.chaos.loopback.siege import Outcome, Siege, Trial, in_peace, in_short, of_strike, open_siege
from relay.outcomes import Blame, Reason
from relay.rehearsal import Unplayed

SIDE_BY_SIDE = 6  # calls whose connections are struck; each is a tenth of a core, with both its far ends
BETWEEN_SECONDS = 0.3  # one order and the next
NAP_SECONDS = 2.0  # of a stopped process: shorter than any patience, so that nobody may notice
COMA_SECONDS = 12.0  # longer than all of it: the far ends give up first
# The lease of a dead node's calls (30 s) runs out, and the next round (30 s) ends them; one whose SID died
# with the node is looked for at the carrier's for two minutes.
OUTAGE_SECONDS = 200.0
DARK_SECONDS = 15.0  # of a pulled cable
RING_SECONDS = 6.0  # of a call that rings when its node is killed
SEEN_SECONDS = 3.0  # for a full disk to be noticed
CONVERSING_SECONDS = 20.0  # for calls to come so far that the callee is heard

_AFTER_DEATH: Final[frozenset[Fate]] = frozenset({(Blame.US, Reason.CUT)})
_ADOPTED: Final[frozenset[Fate]] = _AFTER_DEATH | {GOODBYE}  # its stream comes when there is a service again
_CUT_OFF: Final[frozenset[Fate]] = frozenset(
    {
        *((Blame.CARRIER, reason) for reason in (Reason.LOST, Reason.SILENT, Reason.STALLED)),
        *((Blame.AGENT, reason) for reason in (Reason.LOST, Reason.SILENT, Reason.STALLED)),
        *(GOODBYE, HUNG_UP),
    }
)

_LIVED_ON: Final[frozenset[Fate]] = frozenset({GOODBYE})
_WITHOUT_ROOM: Final = frozenset({"spool cannot be written"})

OnOutcome = Callable[[Outcome], None]
Broken = list[str]


async def strike_connections(folder: Path, seed: int, calls: int, on_outcome: OnOutcome) -> Broken:
    """Calls side by side, most of which are struck on one leg."""
    free = trio.Semaphore(SIDE_BY_SIDE)
    async with open_siege("connections", folder, seed) as siege:
        await _warm_up(siege)

        async def play(trial: Trial) -> None:
            on_outcome(await siege.play(trial))
            free.release()

        async with trio.open_nursery() as nursery:
            for strike in draw_strikes(seed, calls):
                trial = in_peace() if strike is None else of_strike(strike)
                await free.acquire()
                nursery.start_soon(play, trial)
                await trio.sleep(BETWEEN_SECONDS)
        return await siege.settled()


async def stop_service(folder: Path, seed: int, on_outcome: OnOutcome) -> Broken:
    """SIGSTOP and SIGCONT: a nap that nobody may notice, and a coma that the far ends do not wait through."""
    async with open_siege("stopped", folder, seed) as siege:
        await _warm_up(siege)
        siege.stage.outage_seconds = OUTAGE_SECONDS
        for seconds, fates in ((NAP_SECONDS, frozenset({GOODBYE, HUNG_UP})), (COMA_SECONDS, _CUT_OFF)):
            async with _calls(siege, 2, f"stopped for {seconds:g} s", fates, on_outcome) as blows:
                siege.process.send_signal(signal.SIGSTOP)
                blows.fall()
                await trio.sleep(seconds)
                siege.process.send_signal(signal.SIGCONT)
        on_outcome(await siege.play(in_short()))
        return await siege.settled()


async def kill_service(folder: Path, seed: int, on_outcome: OnOutcome) -> Broken:
    """SIGKILL with calls in conversation and one that rings; another process takes its place."""
    async with open_siege("killed", folder, seed) as siege:
        await _warm_up(siege)
        siege.stage.outage_seconds = OUTAGE_SECONDS
        async with trio.open_nursery() as nursery:
            ringing = Trial("killed while it rings", _ADOPTED, OUTAGE_SECONDS, ring_seconds=RING_SECONDS)
            async with _calls(siege, 2, "killed", _AFTER_DEATH, on_outcome, OUTAGE_SECONDS) as blows:
                nursery.start_soon(_play, siege, ringing, on_outcome)
                await siege.wait_placed(4)
                await trio.sleep(2.0)  # what a node has noted in its last second dies with it
                siege.process.kill()
                blows.fall()
                ringing.blow.falls()
                await siege.process.wait()
                siege.process = await siege.stage.add_node(siege.port)
        on_outcome(await siege.play(in_short()))
        return await siege.settled()


async def fill_disk(folder: Path, seed: int, on_outcome: OnOutcome) -> Broken:
    """No room for ledger and spool: no new call is placed, and of those that live nothing is lost."""
    disk = folder / "disk"
    with small_disk(disk):
        settings = {"RELAY_DATA_DIR": str(disk), "RELAY_DATABASE_URL": f"sqlite:///{disk / 'relay.db'}"}
        async with open_siege("full disk", folder, seed, **settings) as siege:
            await _warm_up(siege)
            siege.stage.outage_seconds = OUTAGE_SECONDS
            broken: Broken = []
            async with _calls(siege, 2, "the disk is full", _LIVED_ON, on_outcome) as blows:
                ballast = fill(disk)
                blows.fall()
                await trio.sleep(SEEN_SECONDS)
                refused = await siege.stage.http.post("/v1/calls", json={"to": "+12025559999"})
                if refused.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    broken.append(f"a call was placed without room for it: {refused.text}")
                await siege.wait_over(2)
                ballast.unlink()
            on_outcome(await siege.play(in_short()))
            return broken + await siege.settled(_WITHOUT_ROOM)


async def pull_cable(folder: Path, seed: int, on_outcome: OnOutcome) -> Broken:
    """Every connection half open at once, the carrier's REST interface and its webhooks as well."""
    async with open_siege("no network", folder, seed) as siege:
        await _warm_up(siege)
        siege.stage.outage_seconds = OUTAGE_SECONDS
        async with _calls(siege, 3, "the cable is pulled", _CUT_OFF, on_outcome, DARK_SECONDS * 2) as blows:
            set_loopback(is_up=False)
            blows.fall()
            await trio.sleep(DARK_SECONDS)
            set_loopback(is_up=True)
        on_outcome(await siege.play(in_short()))
        return await siege.settled(frozenset({"hang-up failed"}))


class _Blows:
    """The blows of calls that are struck together."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials

    def fall(self) -> None:
        """Now, on all of them."""
        for trial in self._trials:
            trial.blow.falls()


@asynccontextmanager
async def _calls(
    siege: Siege,
    number: int,
    what: str,
    fates: frozenset[Fate],
    on_outcome: OnOutcome,
    within_seconds: float | None = None,
) -> AsyncIterator[_Blows]:
    """Calls in conversation; over when their records are."""
    trials = [Trial(what, fates, within_seconds) for _ in range(number)]
    conversing = len(siege.conversing) + number
    async with trio.open_nursery() as nursery:
        for trial in trials:
            nursery.start_soon(_play, siege, trial, on_outcome)
            await trio.sleep(BETWEEN_SECONDS)
        with trio.fail_after(CONVERSING_SECONDS):
            await siege.wait_conversing(conversing)
        await trio.sleep(1.0)
        yield _Blows(trials)


async def _play(siege: Siege, trial: Trial, on_outcome: OnOutcome) -> None:
    on_outcome(await siege.play(trial))


async def _warm_up(siege: Siege) -> None:
    """A short call in peace: only what befalls the others may spoil them. Raises Unplayed."""
    outcome = await siege.play(in_short())
    if outcome.violations:
        raise Unplayed(f"not even a call in peace succeeds: {', '.join(outcome.violations)}")
