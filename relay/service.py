"""The composition root: builds everything in order, owns the signals and the shutdown plan.

Knows every other module and holds no rule of its own; the only place where things are constructed.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import structlog
import trio

from relay import __version__, commit
from relay.agent_half import OpenAgent
from relay.compliance import Rulebook, RulebookError, load_rulebook
from relay.costs import Prices, PricesError, load_prices
from relay.dialer import Dialer, open_dialer
from relay.gatekeeper import Gatekeeper, rule_time_from
from relay.handshake import open_agent_leg
from relay.legs import Leg
from relay.listening import Listening, open_listening
from relay.meter import Meter
from relay.outcomes import Blame, LegClosed, Reason
from relay.probe import Probe
from relay.reconciler import Reconciler
from relay.recordings import open_recordings
from relay.roster import Roster, overrides
from relay.settings import ConfigurationError, Settings
from relay.store import Retention, StoreError, open_spool
from relay.store.sql import SqlStore, open_store
from relay.store.subject_key import load_subject_key
from relay.straight import IS_COMPILED
from relay.switchboard import House, Switchboard
from relay.telemetry.capture import Captures
from relay.telemetry.metrics import Metrics
from relay.telemetry.traces import Traces, TracesUnavailable, open_traces
from relay.terms import BargeIn
from relay.web.app import Routes, create_app
from relay.web.books import book_routes
from relay.web.edge import serve as serve_edge
from relay.web.evidence import evidence_routes
from relay.web.explain import explain_routes
from relay.web.health import health_routes
from relay.web.metrics import metrics_routes
from relay.web.numbers import numbers_routes
from relay.web.operator import operator_routes
from relay.web.phone_stream import stream_routes
from relay.web.trust import Trust
from relay.web.webhooks import webhook_routes

AGENT_DIAL_SECONDS = 5.0  # TCP, TLS and handshake; measured at half a second from another continent
WIND_UP_STAGE_SECONDS = 10.0  # from the second signal; longer than a wind-up and its teardown take
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)
CUT_SECONDS = 3.0  # from the third signal to the end, whatever still runs
DAY_SECONDS = 86_400.0
WAITED_FOR_SECONDS = 5.0  # between two lines that say whom a drain waits for
LAST_WORD_SECONDS = 2.0  # behind the last hang-up: the carrier's callback about it is answered too

log = structlog.get_logger(subsystem="service")


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is up."""

    switchboard: Switchboard
    bound: tuple[str, int]


async def serve(
    settings: Settings,
    *,
    log_lines_dropped: Callable[[], int] = lambda: 0,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run until the first signal has drained every call, or until cancelled. Raises ConfigurationError."""
    trust, rulebook, rule_time = _trust(settings), _rulebook(settings), rule_time_from(settings.clock)
    roster, clock = Roster(settings), partial(datetime.now, UTC)
    house, retention = _house(settings), _retention(settings)
    stop, meter = trio.Event(), Meter(Metrics())
    with _open_traces(settings) as traces, trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
        meter.watch_process(__version__, commit(), log_lines_dropped, traces.count_lost)
        async with (
            _open_ledger(settings, meter) as store,
            open_spool(store, settings.data_dir / "spool") as spool,
            open_recordings(settings.record_dir) as recordings,
            carrier_desk(settings) as carrier,
            aclosing(roster.web),
            open_listening() as listening,
            trio.open_nursery() as last,
        ):
            async with trio.open_nursery() as front:
                async with trio.open_nursery() as calls:
                    switchboard = Switchboard(
                        house=house,
                        calls=calls,
                        carrier=carrier,
                        open_agent=agent_opener(settings, _agent_key(settings), listening),
                        store=store,
                        spool=spool,
                        gatekeeper=Gatekeeper(store, rulebook, clock=clock, rule_time=rule_time),
                        agents=roster,
                        clock=clock,
                        probe=Probe(trust.public_url, trust.auth_tokens[0]),
                        captures=Captures(settings.capture_dir),
                        recordings=recordings,
                        traces=traces,
                        meter=meter,
                    )
                    meter.watch_calls(switchboard, house.max_calls, spool)
                    tending = (store, spool, carrier, clock, retention, meter, traces, recordings)
                    reconciler = Reconciler(house.node, switchboard, *tending, house.prices)
                    _tend(last, reconciler.run, switchboard.agent_key.watch, meter.watch_loop)
                    app = create_app(
                        *_public(trust, switchboard, meter, listening),
                        *_operators(house, trust, switchboard, store, rulebook, roster, clock, rule_time),
                        numbers_routes(store, trust.api_token, clock=clock, recordings=recordings),
                        proxies=settings.proxy_networks,
                    )
                    bound = await _listen(front, partial(serve_edge, app, settings.bind, stop=stop))
                    address = f"{bound[0]}:{bound[1]}"
                    log.info("serving", address=address, public_url=trust.public_url, compiled=IS_COMPILED)
                    task_status.started(Running(switchboard, bound))
                    await _run_until_drained(switchboard, signals, settings.drain_seconds)
                    last.start_soon(_ignore, signals, name="late signals")
                    calls.cancel_scope.cancel()
                stop.set()
            last.cancel_scope.cancel()


def _tend(nursery: trio.Nursery, *tasks: Callable[[], Awaitable[object]]) -> None:
    for task in tasks:
        nursery.start_soon(task)


def _public(
    trust: Trust, switchboard: Switchboard, meter: Meter, listening: Listening | None
) -> tuple[Routes, ...]:
    """Everything that asks for no operator's token."""
    return (
        webhook_routes(switchboard, trust),
        stream_routes(switchboard, trust, listening),
        health_routes(switchboard),
        metrics_routes(meter.metrics),
    )


def _operators(
    house: House,
    trust: Trust,
    switchboard: Switchboard,
    store: SqlStore,
    rulebook: Rulebook,
    roster: Roster,
    clock: Callable[[], datetime],
    rule_time: Callable[[], datetime | None],
) -> tuple[Routes, ...]:
    """Everything under `/v1` but the lists."""
    token = trust.api_token
    return (
        operator_routes(switchboard, store, token, max_call_seconds=house.max_call_seconds),
        book_routes(store.books, token, clock=clock),
        evidence_routes(store, token),
        explain_routes(
            store,
            rulebook,
            token,
            agents=roster,
            from_number=house.from_number,
            clock=clock,
            rule_time=rule_time,
        ),
    )


async def _listen(front: trio.Nursery, serving: Callable[..., Awaitable[None]]) -> tuple[str, int]:
    try:
        bound: tuple[str, int] = await front.start(serving)
    except OSError as problem:
        remedy = "Choose another port, or an address of this machine."
        raise ConfigurationError([f"RELAY_BIND: cannot listen there ({problem}). {remedy}"]) from None
    return bound


def carrier_desk(settings: Settings) -> AbstractAsyncContextManager[Dialer]:
    """What asks Twilio, with the account of the settings."""
    accounts = settings.require_serving()
    return open_dialer(
        account_sid=accounts.twilio_account_sid,
        auth_token=accounts.twilio_auth_token.get_secret_value(),
        from_number=accounts.twilio_from_number,
        api_url=settings.twilio_api_url,
        dials_per_second=settings.dials_per_second,
    )


@asynccontextmanager
async def _open_ledger(settings: Settings, meter: Meter) -> AsyncIterator[SqlStore]:
    async with AsyncExitStack() as stack:
        url, key = settings.database_url.get_secret_value(), _subject_key(settings)
        try:
            store = await stack.enter_async_context(open_store(url, key, meter.operated))
        except (StoreError, OSError) as problem:
            raise ConfigurationError([f"RELAY_DATABASE_URL: {problem}"]) from None
        yield store


@contextmanager
def _open_traces(settings: Settings) -> Iterator[Traces]:
    with ExitStack() as stack:
        try:
            traces = stack.enter_context(open_traces(settings.traces_url, __version__))
        except TracesUnavailable as problem:
            raise ConfigurationError([f"RELAY_TRACES_URL: {problem}"]) from None
        yield traces


def _subject_key(settings: Settings) -> bytes:
    """The key of the hashes of numbers; made once, in the folder of what is written, where none is set."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if settings.subject_key is not None:
            return settings.subject_key.get_secret_value().encode()
        return load_subject_key(settings.data_dir)
    except OSError as problem:
        line = f"RELAY_DATA_DIR: {problem}. Name a folder that can be made and written to."
        raise ConfigurationError([line]) from None
    except StoreError as problem:
        raise ConfigurationError([f"RELAY_DATA_DIR: {problem}"]) from None


def _retention(settings: Settings) -> Retention:
    return Retention(
        transcript_seconds=settings.keep_transcript_days * DAY_SECONDS,
        evidence_seconds=settings.keep_evidence_days * DAY_SECONDS,
        audio_seconds=settings.keep_audio_days * DAY_SECONDS,
    )


def _rulebook(settings: Settings) -> Rulebook:
    try:
        return replace(load_rulebook(settings.rules_dir), dials_per_hour=settings.calls_per_hour)
    except RulebookError as problem:
        raise ConfigurationError([f"RELAY_RULES_DIR: {problem}"]) from None


async def _ignore(signals: AsyncIterator[int]) -> None:
    """We are going already: a signal that nobody took would come again behind the receiver, and kill us."""
    async for _ in signals:
        pass


async def _run_until_drained(
    switchboard: Switchboard, signals: AsyncIterator[int], drain_seconds: float
) -> None:
    """The first signal drains, the second winds up, the third cuts; each stage has its bound."""
    await anext(signals)
    had_calls = bool(switchboard.lines)
    stages: tuple[tuple[str, Callable[[], None], float], ...] = (
        ("draining", switchboard.drain, drain_seconds),
        ("winding up", switchboard.wind_up_all, WIND_UP_STAGE_SECONDS),
        ("cutting", switchboard.cut_all, CUT_SECONDS),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_say_whom_we_wait_for, switchboard, name="drain report")
        for stage, begin, seconds in stages:
            begin()
            log.info(stage, calls=len(switchboard.lines), seconds=seconds)
            await _first_of(switchboard.wait_idle, lambda: anext(signals), seconds=seconds)
            if not switchboard.lines:
                break
        nursery.cancel_scope.cancel()
    if had_calls:
        with trio.move_on_after(LAST_WORD_SECONDS):
            await anext(signals)


async def _first_of(*waits: Callable[[], Awaitable[object]], seconds: float) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:

            async def finish(wait: Callable[[], Awaitable[object]]) -> None:
                await wait()
                nursery.cancel_scope.cancel()

            for wait in waits:
                nursery.start_soon(finish, wait)


async def _say_whom_we_wait_for(switchboard: Switchboard) -> None:
    while True:
        await trio.sleep(WAITED_FOR_SECONDS)
        log.info(
            "waiting for calls",
            calls=len(switchboard.lines),
            some=[line.record.id for line in switchboard.lines[:5]],
        )


def _agent_key(settings: Settings) -> str:
    return settings.require_serving().assemblyai_api_key.get_secret_value()


def agent_opener(settings: Settings, key: str, listening: Listening | None = None) -> OpenAgent:
    """Dials the agent's socket; LegClosed (UNREACHABLE) after AGENT_DIAL_SECONDS.

    A lost session is asked for at the same host, with its own token instead of the key.
    """
    tls = ssl.create_default_context()
    tls.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Debian sets it: a connection that was cut would look ended

    async def open_agent(resume_token: str | None) -> Leg:
        headers = {"Authorization": f"Bearer {resume_token or key}"}
        with trio.move_on_after(AGENT_DIAL_SECONDS):
            return await open_agent_leg(
                settings.assemblyai_ws_url, headers=headers, tls=tls, listening=listening
            )
        raise LegClosed(Blame.AGENT, Reason.UNREACHABLE, f"no answer within {AGENT_DIAL_SECONDS:g} s")

    return open_agent


def _house(settings: Settings) -> House:
    accounts = settings.require_serving()
    return House(
        node=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",  # never the same twice
        from_number=accounts.twilio_from_number,
        public_url=accounts.public_url,
        max_call_seconds=settings.max_call_seconds,
        max_calls=settings.max_calls,
        ring_seconds=settings.ring_seconds,
        barge_in=BargeIn(settings.barge_in),
        lead_silence_seconds=settings.lead_silence_ms / 1000,
        overrides=overrides(settings),
        prices=_prices(settings),
    )


def _prices(settings: Settings) -> Prices:
    try:
        return load_prices(settings.prices_file)
    except PricesError as problem:
        lines = str(problem).splitlines()
        raise ConfigurationError([f"RELAY_PRICES_FILE: {line}" for line in lines]) from None


def _trust(settings: Settings) -> Trust:
    accounts = settings.require_serving()
    tokens = (accounts.twilio_auth_token, settings.twilio_auth_token_previous)
    return Trust(
        public_url=accounts.public_url,
        account_sid=accounts.twilio_account_sid,
        auth_tokens=tuple(token.get_secret_value() for token in tokens if token is not None),
        api_token=settings.api_token.get_secret_value() if settings.api_token else None,
    )
