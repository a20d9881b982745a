"""The service and its outside world on loopback, and one scenario played through the production path.

Knows both sides, which nothing else does: what it starts is what production starts, with other addresses.
"""

from __future__ import annotations

import calendar
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import trio

from relay import service
from relay.settings import load_settings
from relay.simulator.agent import AgentEmulator, serve_agent
from relay.simulator.carrier import Carrier, open_carrier, serve_carrier
from relay.simulator.customer import open_loopback_customer
from relay.simulator.ledger import Entry, Ledger
from relay.simulator.placed_call import PlacedCall
from relay.simulator.scenario import Order, Scenario
from relay.simulator.speech import Voices

ACCOUNT_SID = "AC" + "0" * 32
AUTH_TOKEN = "rehearsal-auth-token"  # noqa: S105 - opens nothing but this rehearsal
API_KEY = "rehearsal-api-key"
API_TOKEN = "rehearsal-api-token"  # noqa: S105
FROM_NUMBER = "+12025550100"
OFFICE_HOURS = "2026-03-10T18:00:00Z"  # a Tuesday afternoon anywhere in the United States

PLAY_SECONDS = 300.0  # for one scenario, whatever happens
POLL_SECONDS = 0.05  # between two looks at the record, once the carrier is done
ATTEMPTS = 3  # at asking the service something
START_SECONDS = 20.0  # of a process of its own, on a busy machine
RECORD_SECONDS = 20.0  # from the carrier's last callback to the final record


class Unplayed(Exception):
    """The scenario could not be played to a final record."""


@dataclass(eq=False)
class Performance:
    """One scenario as it was played."""

    scenario: Scenario
    ledger: Ledger
    answer: Mapping[str, Any] = field(default_factory=dict)  # of POST /v1/calls
    answer_status: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)
    call: PlacedCall | None = None  # as the carrier has it; None when it was never created


class Stage:
    """A running service between a carrier and an agent. Scenarios may be played side by side."""

    def __init__(
        self,
        carrier: Carrier,
        http: httpx.AsyncClient,
        cast: _Cast,
        process: trio.Process | None,
        add_node: Callable[[int], Awaitable[trio.Process]],
    ) -> None:
        self.carrier = carrier
        self.http = http  # with the operator's token
        self.process = process  # of the service, where it has one of its own
        self.outage_seconds = 0.0  # for which the service may be gone, and its records late
        self.add_node = add_node  # one more `relay serve` with the same settings, on a port of its own
        self._cast = cast

    async def play(
        self, scenario: Scenario, *, on_entry: Callable[[Entry], None] | None = None, **wishes: Any
    ) -> Performance:
        """Place the scenario's call through `/v1/calls`, follow it to its final record. Raises Unplayed."""
        performance = Performance(scenario, Ledger(on_entry))
        order = self._cast.engage(performance)
        with trio.move_on_after(PLAY_SECONDS):
            try:
                await self._prepare(scenario.call, order["to"], order["variables"]["business"])
                key = {"Idempotency-Key": uuid4().hex}  # so that it may be asked twice
                placed = await self._ask("POST", "/v1/calls", json={**order, **wishes}, headers=key)
                performance.answer, performance.answer_status = placed.json(), placed.status_code
                if "id" in performance.answer:
                    await self._follow(performance)
            except httpx.HTTPStatusError as problem:
                raise Unplayed(
                    f"{scenario.title}: {problem.request.url.path} said {problem.response.text}"
                ) from None
            except httpx.TransportError as problem:
                raise Unplayed(f"{scenario.title}: the service is gone ({problem!r})") from problem
            return performance
        raise Unplayed(f"{scenario.title}: not over after {PLAY_SECONDS:g} s")

    async def _prepare(self, order: Order, to: str, business: str) -> None:
        """Put on record what the scenario wants to be known before the call."""
        now = datetime.now(UTC).isoformat()
        if order.consent is not None:
            consent = {"number": to, "purpose": "telemarketing", "given_at": now, "source": "scenario"}
            answer = await self.http.post("/v1/consents", json=consent | order.consent.model_dump())
            answer.raise_for_status()
        for name in order.lists:
            copy = {"list": name, "as_of": now}
            answer = await self.http.post("/v1/dnc/import", params=copy, content="number\n")
            answer.raise_for_status()
        if order.slots:
            csv = "\n".join(["starts_at", *(at.isoformat() for slot in order.slots for at in _coming(slot))])
            where = {"calendar": business}
            answer = await self.http.post("/v1/appointments/import", params=where, content=csv)
            answer.raise_for_status()

    async def _follow(self, performance: Performance) -> None:
        while performance.call is None or not performance.call.finished.is_set():
            if performance.call is None and await self._read(performance) and performance.call is None:
                return  # the carrier never made a call of it
            await trio.sleep(POLL_SECONDS)
        with trio.move_on_after(RECORD_SECONDS + self.outage_seconds):
            while not (await self._read(performance) and performance.record["carrier_confirmed_at"]):  # noqa: ASYNC110
                await trio.sleep(POLL_SECONDS)
            return
        raise Unplayed(f"{performance.scenario.title}: no final record")

    async def _read(self, performance: Performance) -> bool:
        """Take the record as it is now; whether it is final."""
        try:
            answer = await self._ask("GET", f"/v1/calls/{performance.answer['id']}")
        except httpx.TransportError:
            if not self.outage_seconds:
                raise
            return False
        if answer.status_code != httpx.codes.OK and self.outage_seconds:
            return False
        performance.record = answer.json()
        performance.call = performance.call or self.carrier.calls.get(performance.record.get("sid") or "")
        return bool(performance.record["status"] == "ended")

    async def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """As a careful operator asks: a node that dies with the question leaves it to another one."""
        for _ in range(ATTEMPTS - 1):
            try:
                answer = await self.http.request(method, path, **request)
                if answer.is_success or answer.headers.get("Content-Type") == "application/json":
                    return answer  # of the service itself; a balancer's own no is a page
            except httpx.TransportError:
                pass
            await trio.sleep(POLL_SECONDS)
        return await self.http.request(method, path, **request)


def _coming(slot: str) -> list[datetime]:
    """`Tuesday 10:00` of this week and the next: where it is called it may be another day than here."""
    name, _, clock = slot.partition(" ")
    today = datetime.now(UTC).date()
    ahead = (list(calendar.day_name).index(name) - today.weekday()) % 7
    days = (today + timedelta(days=ahead + week) for week in (0, 7))
    return [datetime.fromisoformat(f"{day}T{clock}:00-05:00") for day in days]


class _Cast:
    """Who plays what: each call has a number and a business of its own, by which the far ends know it."""

    def __init__(self) -> None:
        self._by_number: dict[str, Performance] = {}
        self._by_business: dict[str, Performance] = {}

    def engage(self, performance: Performance) -> dict[str, Any]:
        order = performance.scenario.call
        number = len(self._by_number) + 1
        to = order.to if order.to not in self._by_number else f"+1202555{number:04d}"
        business = order.variables.get("business", "")
        if not business or business in self._by_business:
            business = f"Office {number}"
        self._by_number[to] = self._by_business[business] = performance
        wanted = {"time_limit": order.time_limit, "machine_detection": order.machine_detection}
        wishes = {name: value for name, value in wanted.items() if value}
        return {
            "to": to,
            "agent": order.agent,
            "variables": {**order.variables, "business": business},
            **wishes,
        }

    def of_form(self, form: list[tuple[str, str]]) -> Performance:
        return self._by_number[dict(form)["To"]]

    def of_session(self, session: Mapping[str, Any]) -> Performance:
        """By the business in prompt or greeting; an upgrade says nothing yet, and gets the newest call."""
        said = f"{session.get('system_prompt', '')} {session.get('greeting', '')}"
        named = [
            each
            for business, each in self._by_business.items()
            if f" {business}." in said or f" {business}," in said
        ]
        return named[-1] if named else list(self._by_number.values())[-1]


@asynccontextmanager
async def open_stage(
    data_dir: Path,
    agent_port: int = 0,
    /,
    *,
    seed: int | None = None,
    synthesise: bool = True,
    own_process: bool = False,
    **settings: str,
) -> AsyncIterator[Stage]:
    """Everything up, on loopback ports of its own; `settings` are further environment variables.

    With `own_process` the service is a `relay serve` of its own, which logs to `data_dir`/relay.log.
    With `agent_port` the agent listens there, for who reaches it through something else.
    """
    cast = _Cast()
    voices = Voices(synthesise=synthesise)
    rng = random.Random(seed)
    port = free_port()
    public_url = settings.get("PUBLIC_URL", f"http://127.0.0.1:{port}")
    async with (
        open_loopback_customer(public_url, public_url) as customer,
        open_carrier(
            account_sid=ACCOUNT_SID,
            auth_token=AUTH_TOKEN,
            customer=customer,
            script_for=lambda form: cast.of_form(form).scenario,
            ledger_for=lambda form: cast.of_form(form).ledger,
            voices=voices,
            numbers=[FROM_NUMBER],
            rng=rng,
        ) as carrier,
        trio.open_nursery() as nursery,
    ):
        emulator = AgentEmulator(
            API_KEY,
            lambda session: cast.of_session(session).scenario,
            lambda session: cast.of_session(session).ledger,
            voices,
            rng,
        )
        agent_port = await nursery.start(serve_agent, emulator, agent_port)
        api_url = await nursery.start(serve_carrier, carrier)
        environment = _environment(port, api_url, agent_port, data_dir) | settings

        async def add_node(port: int) -> trio.Process:
            bound = {**environment, "RELAY_BIND": f"127.0.0.1:{port}"}
            return await _start(nursery, bound, data_dir)

        first_port = int(environment["RELAY_BIND"].rpartition(":")[2])
        process = await add_node(first_port) if own_process else None
        if process is None:
            await nursery.start(service.serve, load_settings(environment))
        headers = {"Authorization": f"Bearer {API_TOKEN}"}
        async with httpx.AsyncClient(
            base_url=public_url, headers=headers, timeout=30, trust_env=False
        ) as http:
            yield Stage(carrier, http, cast, process, add_node)
        nursery.cancel_scope.cancel()


def _environment(port: int, api_url: str, agent_port: int, data_dir: Path) -> dict[str, str]:
    """The settings of a service whose outside world is on loopback."""
    return {
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "TWILIO_FROM_NUMBER": FROM_NUMBER,
        "TWILIO_API_URL": api_url,
        "ASSEMBLYAI_API_KEY": API_KEY,
        "ASSEMBLYAI_WS_URL": f"ws://127.0.0.1:{agent_port}/v1/ws",
        "RELAY_BIND": f"127.0.0.1:{port}",
        "RELAY_API_TOKEN": API_TOKEN,
        "RELAY_DATABASE_URL": f"sqlite:///{data_dir / 'relay.db'}",
        "RELAY_DATA_DIR": str(data_dir),
        "RELAY_DIALS_PER_SECOND": "20",
        "RELAY_DRAIN_SECONDS": "0",
        "RELAY_CLOCK": OFFICE_HOURS,
    }


async def _start(nursery: trio.Nursery, environment: Mapping[str, str], data_dir: Path) -> trio.Process:
    """`relay serve`, once it answers. Raises Unplayed when it does not come up."""
    command = [sys.executable, "-m", "relay", "serve"]
    log = (data_dir / "relay.log").open("ab")
    run = partial(
        trio.run_process,
        command,
        env={**_inherited(), **environment},
        cwd=data_dir,
        stdout=log,
        stderr=log,
        check=False,
    )
    with log:
        process: trio.Process = await nursery.start(run)
    with trio.move_on_after(START_SECONDS):
        async with httpx.AsyncClient(trust_env=False) as http:
            while process.returncode is None:
                try:
                    if (
                        await http.get(f"http://{environment['RELAY_BIND']}/livez")
                    ).status_code == httpx.codes.OK:
                        return process
                except httpx.TransportError:
                    await trio.sleep(POLL_SECONDS)
    raise Unplayed(f"relay serve did not come up: see {data_dir / 'relay.log'}")


def _inherited() -> dict[str, str]:
    """What a program needs of its surroundings to run at all, and no setting."""
    package = str(Path(__file__).parent.parent)
    return {"PATH": os.defpath, "PYTHONPATH": package, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
