"""`relay check` tells what keeps a call from being placed, and how to mend it."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import WebSocketRequest, WebSocketServer, serve_websocket

from relay import check, service
from relay.check import account, address, session
from relay.check.findings import FAIL, OK, WARN, Answer, Finding, Result, is_ready, to_json
from relay.check.here import look_around
from relay.rehearsal import free_port
from relay.settings import Settings, load_settings
from relay.simulator.agent import AgentEmulator, serve_agent
from relay.simulator.carrier import open_carrier, serve_carrier
from relay.simulator.customer import open_loopback_customer
from relay.simulator.ledger import Ledger
from relay.simulator.scenario import Scenario
from relay.simulator.session_config import VOICES
from relay.simulator.speech import Voices

TOP = Path(__file__).parent.parent
TOKEN = "auth-token-of-the-account"
KEY = "key-of-the-agent"
CALLER_ID = "+12025550100"
ACCOUNT = {
    "PUBLIC_URL": "http://127.0.0.1:9",
    "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "TWILIO_FROM_NUMBER": CALLER_ID,
    "TWILIO_API_URL": "http://127.0.0.1:9",
    "ASSEMBLYAI_API_KEY": KEY,
    "ASSEMBLYAI_WS_URL": "ws://127.0.0.1:9/v1/ws",
    "RELAY_API_TOKEN": "token-of-the-operator",
    "RELAY_AGENTS_DIR": str(Path(__file__).parent),  # where there are none
}


@asynccontextmanager
async def running_carrier(
    account_type: str = "Full", numbers: Sequence[str] = (CALLER_ID,), countries: Sequence[str] = ("US",)
) -> AsyncIterator[str]:
    """The emulated carrier; yields the address of its API."""
    async with (
        open_loopback_customer("http://127.0.0.1:9", "http://127.0.0.1:9") as customer,
        open_carrier(
            account_sid=ACCOUNT["TWILIO_ACCOUNT_SID"],
            auth_token=TOKEN,
            customer=customer,
            script_for=lambda _form: Scenario(),
            ledger_for=lambda _form: Ledger(),
            numbers=numbers,
            account_type=account_type,
            countries=countries,
        ) as carrier,
        trio.open_nursery() as nursery,
    ):
        yield await nursery.start(serve_carrier, carrier)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running_agent(ledger: Ledger, **fault: str) -> AsyncIterator[str]:
    """The emulated agent; yields the address of its socket."""
    faults = [{"leg": "agent", "at": "before-ready", **fault}] if fault else []
    scenario = Scenario.model_validate({"fault": faults})
    voices = Voices(synthesise=False)
    emulator = AgentEmulator(
        KEY, lambda _session: scenario, lambda _session: ledger, voices, random.Random(1)
    )
    async with trio.open_nursery() as nursery:
        yield f"ws://127.0.0.1:{await nursery.start(serve_agent, emulator)}/v1/ws"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running_service(public_url: str = "", port: int = 0) -> AsyncIterator[str]:
    """`relay serve` in this process; yields its public address."""
    bind = f"127.0.0.1:{port or free_port()}"
    public_url = public_url or f"http://{bind}"
    async with trio.open_nursery() as nursery:
        await nursery.start(service.serve, settings(PUBLIC_URL=public_url, RELAY_BIND=bind))
        yield public_url
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def answering(*head: str, body: str = "") -> AsyncIterator[str]:
    """Something at an address that answers everything in the same way."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        lines = [*head, f"Content-Length: {len(body)}", "Connection: close", "", body]
        await stream.send_all("\r\n".join(lines).encode())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def settings(**changes: str) -> Settings:
    return load_settings({**ACCOUNT, **changes})


def of(findings: Sequence[Finding], what: str) -> Finding:
    [finding] = [each for each in findings if each.what == what]
    return finding


def mends(answer: Answer, result: Result, *words: str) -> bool:
    """Whether the answer has that result and says all these words, a remedy among them."""
    assert answer[2], "what is wrong comes with a remedy"
    return answer[0] is result and all(word in f"{answer[1]} {answer[2]}" for word in words)


# ---- everything at once ------------------------------------------------------------------------------------


async def relay_check(environment: Mapping[str, str], folder: Path, *words: str) -> tuple[int, str, str]:
    """The command as a person runs it."""
    done = await trio.run_process(
        [sys.executable, "-m", "relay", "check", *words],
        env={"PATH": os.defpath, "PYTHONPATH": str(TOP), **environment},
        cwd=folder,
        check=False,
        capture_stdout=True,
        capture_stderr=True,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_everything_in_order_is_exit_status_0(tmp_path: Path) -> None:
    ledger = Ledger()
    async with running_carrier() as api, running_agent(ledger) as ws, running_service() as public_url:
        ours = {**ACCOUNT, "PUBLIC_URL": public_url, "TWILIO_API_URL": api, "ASSEMBLYAI_WS_URL": ws}
        status, said, complaints = await relay_check(ours, tmp_path, "--json", "--hold", "0.5")
        assert (status, complaints) == (0, "")
        report = json.loads(said)
        assert report["ready"] is True
        failed = [each for each in report["findings"] if each["result"] == "fail"]
        assert failed == []
        wanted = {
            *(f"agent {profile.stem}" for profile in TOP.glob("relay/agents/*.toml")),
            "settings",
            "descriptors",
            "Twilio account",
            "caller id",
            "country",
            "clock",
        }
        wanted |= {
            "signed webhook",
            "unsigned webhook",
            "stream",
            "long stream",
            "new calls",
            "agent session",
        }
        assert {each["what"] for each in report["findings"]} == wanted
        assert all(set(each) == {"what", "result", "found", "remedy"} for each in report["findings"])
    assert [entry.event for entry in ledger.entries if entry.direction == "received"][-1] == "session.end"
    assert ledger.violations == []


async def test_what_keeps_a_call_from_being_placed_is_exit_status_1_and_a_line_with_its_remedy(
    tmp_path: Path,
) -> None:
    status, said, _ = await relay_check(ACCOUNT, tmp_path, "--hold", "0")
    assert status == 1
    [line] = [line for line in said.splitlines() if line.startswith("unsigned webhook\tfail\t")]
    assert "relay serve" in line


async def test_settings_that_leave_nothing_to_ask_are_exit_status_2(tmp_path: Path) -> None:
    incomplete = {name: value for name, value in ACCOUNT.items() if name != "ASSEMBLYAI_API_KEY"}
    status, said, complaints = await relay_check(incomplete, tmp_path, "--json")
    assert status == 2
    assert "ASSEMBLYAI_API_KEY" in complaints
    [finding] = json.loads(said)["findings"]
    assert (finding["what"], finding["result"], finding["found"]) == (
        "settings",
        "fail",
        "ASSEMBLYAI_API_KEY",
    )
    assert "is not set" in finding["remedy"]


async def test_everybody_is_asked_side_by_side_and_reported_in_one_order() -> None:
    waits: list[list[str]] = []
    findings = await check.examine(settings(), lambda left: waits.append(list(left)))
    assert [finding.what for finding in findings][-len(check.QUESTIONS) :] == list(check.QUESTIONS)
    assert [len(left) for left in waits] == list(reversed(range(len(check.QUESTIONS))))
    assert not is_ready(findings)


async def test_a_long_stream_makes_nobody_else_be_waited_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_settings: Settings) -> Answer:
        await trio.sleep_forever()
        raise AssertionError

    async def long_stream(_settings: Settings, *, seconds: float) -> Answer:
        await trio.sleep(seconds)
        return OK, "", ""

    monkeypatch.setattr(check, "QUESTIONS", {"never": never})
    monkeypatch.setattr(address, "ask_long_stream", long_stream)
    waits: list[tuple[float, list[str]]] = []
    began = trio.current_time()
    findings = await check.examine(
        settings(), lambda left: waits.append((trio.current_time() - began, list(left))), hold_seconds=700
    )
    assert waits == [(check.ANSWER_SECONDS, ["long stream"]), (700.0, [])]
    assert of(findings, "never").found == "no answer within 20 s"
    assert of(findings, "long stream").result is OK


async def test_no_report_shows_a_secret() -> None:
    async with running_carrier() as api, running_agent(Ledger()) as ws:
        ours = settings(TWILIO_API_URL=api, ASSEMBLYAI_WS_URL=ws, ASSEMBLYAI_API_KEY="wrong-key")
        report = to_json(await check.examine(ours, lambda _left: None)).decode()
    assert not [secret for secret in ours.secrets() if secret in report]


# ---- this machine ------------------------------------------------------------------------------------------


def test_doubtful_settings_are_warnings_and_keep_nobody_from_dialling() -> None:
    findings = look_around(settings(RELAY_API_TOKEN="", RELAY_MAX_CALLS="1"))
    assert "RELAY_API_TOKEN" in of(findings, "settings").found
    assert of(findings, "settings").result is WARN
    assert is_ready(findings)


def test_the_agents_that_ship_are_in_order() -> None:
    findings = [each for each in look_around(settings()) if each.what.startswith("agent ")]
    assert len(findings) >= 6
    assert [each for each in findings if each.result is not OK] == []


def write_agent(folder: Path, name: str, **changes: str) -> None:
    agent = {
        "purpose": "informational",
        "disclosure": "This is an automated assistant calling.",
        "system_prompt": "Be brief.",
        **changes,
    }
    folder.joinpath(f"{name}.toml").write_text(
        "\n".join(f"{key} = {json.dumps(agent[key])}" for key in agent)
    )


def test_each_agent_is_composed_as_a_call_without_variables_would(tmp_path: Path) -> None:
    write_agent(tmp_path, "brief")
    write_agent(tmp_path, "slow", greeting="And this goes on. " * 8)
    write_agent(tmp_path, "endless", greeting="And this goes on. " * 20)
    write_agent(tmp_path, "personal", greeting="Is this {{name}}?")
    findings = look_around(settings(RELAY_AGENTS_DIR=str(tmp_path)))
    assert "39 characters, about 2 s" in of(findings, "agent brief").found
    assert of(findings, "agent slow").result is WARN
    assert of(findings, "agent endless").result is FAIL
    assert of(findings, "agent personal").result is OK
    assert "name" in of(findings, "agent personal").found


def test_an_agent_whose_tools_do_not_exist_fails(tmp_path: Path) -> None:
    write_agent(tmp_path, "handy", tools=["juggle"])  # type: ignore[arg-type]
    finding = of(look_around(settings(RELAY_AGENTS_DIR=str(tmp_path))), "agents")
    assert finding.result is FAIL
    assert "handy.toml: tools: there is no juggle" in finding.found


async def test_an_agent_file_that_cannot_be_read_fails_and_no_session_is_opened(tmp_path: Path) -> None:
    tmp_path.joinpath("broken.toml").write_text("purpose = ")
    ours = settings(RELAY_AGENTS_DIR=str(tmp_path))
    assert "broken.toml" in of(look_around(ours), "agents").found
    assert mends(await session.ask_agent_session(ours), FAIL, "not asked")


def test_too_few_descriptors_for_the_calls_admitted_fail() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        enough = of(look_around(settings(RELAY_MAX_CALLS="200")), "descriptors")
        too_few = of(look_around(settings(RELAY_MAX_CALLS="300")), "descriptors")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert enough.result is OK
    assert too_few.result is FAIL
    assert "ulimit -n 1176" in too_few.remedy


# ---- our public address ------------------------------------------------------------------------------------


async def test_an_address_where_nothing_answers_names_relay_serve() -> None:
    for question in (address.ask_signed_webhook, address.ask_unsigned_webhook, address.ask_stream):
        assert mends(await question(settings()), FAIL, "relay serve")


async def test_a_service_with_another_auth_token_refuses_our_signatures() -> None:
    async with running_service() as public_url:
        ours = settings(PUBLIC_URL=public_url, TWILIO_AUTH_TOKEN="another")
        assert mends(await address.ask_signed_webhook(ours), FAIL, "signature")
        assert mends(await address.ask_stream(ours), FAIL, "403", "same settings")


async def test_something_else_that_takes_any_webhook_is_found_out_by_an_unsigned_one() -> None:
    async with answering("HTTP/1.1 204 No Content") as public_url:
        ours = settings(PUBLIC_URL=public_url)
        assert (await address.ask_signed_webhook(ours))[0] is OK
        assert mends(await address.ask_unsigned_webhook(ours), FAIL, "204")


async def test_a_balancer_that_passes_no_upgrades_is_named() -> None:
    async with answering("HTTP/1.1 400 Bad Request") as public_url:
        assert mends(await address.ask_stream(settings(PUBLIC_URL=public_url)), FAIL, "400", "WebSockets")


async def test_an_upgrade_that_ends_without_our_close_code_is_a_fault_of_what_stands_between() -> None:
    async def close(request: WebSocketRequest) -> None:
        await (await request.accept()).aclose(1001)

    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, close, "127.0.0.1", 0, ssl_context=None)
        server: WebSocketServer = await nursery.start(serve)
        ours = settings(PUBLIC_URL=f"http://127.0.0.1:{server.port}")
        assert mends(await address.ask_stream(ours), FAIL, "1001, not 1008")
        nursery.cancel_scope.cancel()


async def test_a_balancer_that_cuts_idle_streams_is_found_out_and_the_time_is_told() -> None:
    node = free_port()
    async with cutting_after(1.0, node) as front, running_service(front, node):
        ours = settings(PUBLIC_URL=front)
        assert mends(await held(ours, 2.5), FAIL, "cut after 1 s", "time-outs")
        assert (await held(ours, 0.2))[0] is OK


async def test_a_stream_that_is_dead_although_it_looks_open_is_found_out_too() -> None:
    async def swallow(request: WebSocketRequest) -> None:
        await request.accept()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, swallow, "127.0.0.1", 0, ssl_context=None)
        server: WebSocketServer = await nursery.start(serve)
        ours = settings(PUBLIC_URL=f"http://127.0.0.1:{server.port}")
        with trio.move_on_after(2) as patience:
            await held(ours, 0.1)
        assert patience.cancelled_caught  # examine holds the deadline, and says so
        nursery.cancel_scope.cancel()


async def held(ours: Settings, seconds: float) -> Answer:
    return await address.ask_long_stream(ours, seconds=seconds)


@asynccontextmanager
async def cutting_after(seconds: float, port: int) -> AsyncIterator[str]:
    """A balancer that lets a connection live for so long; yields its address."""

    async def pass_on(client: trio.SocketStream) -> None:
        node = await trio.open_tcp_stream("127.0.0.1", port)
        async with client, node:
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pump, client, node)
                    nursery.start_soon(pump, node, client)

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for chunk in source:
            await sink.send_all(chunk)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, pass_on, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_service_that_takes_no_calls_says_why() -> None:
    body = '{"status": "draining", "message": "this node is shutting down"}'
    async with answering("HTTP/1.1 503 Service Unavailable", body=body) as public_url:
        answer = await address.ask_readiness(settings(PUBLIC_URL=public_url))
    assert mends(answer, FAIL, "this node is shutting down")


async def test_a_balancer_that_keeps_readyz_to_itself_is_a_warning() -> None:
    async with answering("HTTP/1.1 404 Not Found") as public_url:
        assert mends(await address.ask_readiness(settings(PUBLIC_URL=public_url)), WARN, "readyz")


async def test_a_loopback_address_is_no_use_to_the_real_carrier() -> None:
    ours = settings(TWILIO_API_URL="https://api.twilio.com")
    assert mends(await address.ask_signed_webhook(ours), FAIL, "loopback")


# ---- the carrier -------------------------------------------------------------------------------------------


async def test_wrong_credentials_fail_with_the_carriers_reason() -> None:
    async with running_carrier() as api:
        ours = settings(TWILIO_API_URL=api, TWILIO_AUTH_TOKEN="another")
        assert mends(await account.ask_account(ours), FAIL, "credentials", "TWILIO_AUTH_TOKEN")
        assert mends(await account.ask_caller_id(ours), FAIL, "credentials", "TWILIO_AUTH_TOKEN")


async def test_a_trial_account_is_a_warning() -> None:
    async with running_carrier(account_type="Trial") as api:
        assert mends(
            await account.ask_account(settings(TWILIO_API_URL=api)), WARN, "verified numbers", "upgrade"
        )


async def test_a_caller_id_that_the_account_does_not_have_fails() -> None:
    async with running_carrier(numbers=["+12025550199"]) as api:
        answer = await account.ask_caller_id(settings(TWILIO_API_URL=api))
    assert mends(answer, FAIL, "TWILIO_FROM_NUMBER")


async def test_a_country_that_is_not_ticked_fails() -> None:
    async with running_carrier(countries=["CA"]) as api:
        answer = await account.ask_country(settings(TWILIO_API_URL=api))
    assert mends(answer, FAIL, "US", "Voice Geographic Permissions")


async def test_a_country_that_nobody_tells_about_is_a_warning() -> None:
    assert mends(await account.ask_country(settings()), WARN, "US", "console")


async def test_an_api_that_cannot_be_reached_fails_and_names_its_setting() -> None:
    assert mends(await account.ask_account(settings()), FAIL, "TWILIO_API_URL")
    assert mends(await account.ask_clock(settings()), WARN, "Twilio")


async def test_the_clock_is_held_against_the_carriers() -> None:
    now = format_datetime(datetime.now(UTC), usegmt=True)
    async with answering("HTTP/1.1 401 Unauthorized", f"Date: {now}") as api:
        assert (await account.ask_clock(settings(TWILIO_API_URL=api)))[0] is OK
    async with answering("HTTP/1.1 401 Unauthorized") as api:
        assert mends(await account.ask_clock(settings(TWILIO_API_URL=api)), WARN, "no date")


@pytest.mark.parametrize(("seconds", "result"), [(-7, FAIL), (-4, OK), (0, OK), (5, OK), (7, FAIL)])
def test_more_than_five_seconds_of_skew_fail(seconds: int, result: Result) -> None:
    theirs = datetime(2026, 3, 10, 18, tzinfo=UTC)
    date = format_datetime(theirs, usegmt=True)
    assert account.judge_clock(date, theirs + timedelta(seconds=seconds))[0] is result


# ---- the agent ---------------------------------------------------------------------------------------------


async def test_a_bad_key_is_unauthorized_although_the_upgrade_was_accepted() -> None:
    async with running_agent(Ledger()) as ws:
        answer = await session.ask_agent_session(settings(ASSEMBLYAI_WS_URL=ws, ASSEMBLYAI_API_KEY="bad"))
    assert mends(answer, FAIL, "unauthorized", "ASSEMBLYAI_API_KEY")


async def test_a_refused_voice_is_a_warning_with_the_voices_that_there_are() -> None:
    async with running_agent(Ledger()) as ws:
        answer = await session.ask_agent_session(settings(ASSEMBLYAI_WS_URL=ws, AGENT_VOICE="ivy"))
    assert mends(answer, WARN, "ivy", "AGENT_VOICE", ", ".join(VOICES))


async def test_a_voice_that_exists_is_accepted_and_named() -> None:
    async with running_agent(Ledger()) as ws:
        answer = await session.ask_agent_session(settings(ASSEMBLYAI_WS_URL=ws, AGENT_VOICE="jane"))
    assert answer[0] is OK
    assert "jane" in answer[1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wrong-format", ["audio/pcm"]),
        ("refuse:503", ["503", "ASSEMBLYAI_WS_URL"]),
        ("error:concurrency_exceeded", ["concurrency_exceeded", "limit"]),
        ("error:agent_init_failed", ["agent_init_failed"]),
        ("rst", ["ASSEMBLYAI_WS_URL"]),
    ],
)
async def test_a_session_that_does_not_come_about_fails_with_its_reason(fault: str, words: list[str]) -> None:
    async with running_agent(Ledger(), kind=fault) as ws:
        assert mends(await session.ask_agent_session(settings(ASSEMBLYAI_WS_URL=ws)), FAIL, *words)


async def test_an_agent_that_cannot_be_reached_fails_and_names_its_setting() -> None:
    assert mends(await session.ask_agent_session(settings()), FAIL, "ASSEMBLYAI_WS_URL")


# ---- the questions that only the vendors can answer --------------------------------------------------------


def test_the_live_day_names_what_is_there() -> None:
    page = TOP.joinpath("docs", "live-day.md").read_text("utf-8")
    questions = re.findall(r"^\| ([TA])(\d+) \|", page, re.MULTILINE)
    for vendor in "TA":
        numbers = [int(number) for whose, number in questions if whose == vendor]
        assert numbers == list(range(1, len(numbers) + 1))
    places = re.findall(r"`(relay/[\w/]+\.py)`:((?: `[^`]+`)+)", page)
    assert len(places) > 30, "every question says where its assumption is made"
    for module, names in places:
        source = TOP.joinpath(module).read_text("utf-8")
        assert [name for name in re.findall(r"`([^`]+)`", names) if name not in source] == [], module
    house = "".join(path.read_text("utf-8") for path in TOP.joinpath("relay").glob("*.py"))
    house += TOP.joinpath("relay", "web", "phone_stream.py").read_text("utf-8")
    events = {quoted or bare for quoted, bare in re.findall(r'`event (?:"([^"]+)"|([a-z-]+))', page)}
    assert {name for name in events if f'"{name}"' not in house} == set()
    wire = "".join(path.read_text("utf-8") for path in TOP.joinpath("relay", "wire").glob("*.py"))
    messages = set(re.findall(r'\.(?:type|event) == "([^"]+)"', page))
    assert {name for name in messages if f'"{name}"' not in wire} == set()
