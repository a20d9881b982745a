"""What the README and the pages under docs/ say is what the code does."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest
import trio
from cyclopts import App
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from relay.cli import app
from relay.limits import Limits
from relay.outcomes import Blame, Reason
from relay.profiles import Profile, read_profile
from relay.rehearsal import API_TOKEN, open_stage
from relay.script import Overrides, compose
from relay.settings import Accounts, Settings
from relay.simulator.scenario import shipped_scenario
from relay.telemetry.logs import SUBSYSTEMS
from relay.telemetry.metrics import CATALOGUE
from relay.tools.builtin import builtin_tools
from relay.wire import agent, phone, signature, twiml

Each = TypeVar("Each")

TOP: Final = Path(__file__).parent.parent
README: Final = TOP / "README.md"
AGENTS: Final = TOP / "docs" / "agents.md"
RUNBOOK: Final = TOP / "docs" / "runbook.md"
READINESS: Final = TOP / "docs" / "readiness.md"
METRICS: Final = TOP / "docs" / "metrics.md"
ARCHITECTURE: Final = TOP / "docs" / "architecture.md"
RECORDS: Final = sorted((TOP / "docs" / "decisions").glob("*.md"))
PAGES: Final = [
    README,
    *(TOP / f"{name}.md" for name in ("CHANGELOG", "SECURITY")),
    *sorted((TOP / "docs").rglob("*.md")),
]
BALANCER: Final = set(re.findall(r"RELAY_\w+", (TOP / "deploy" / "haproxy.cfg").read_text("utf-8")))
VARIABLES: Final = {field.alias for field in Settings.model_fields.values()} | {"RELAY_TEST_ALL"} | BALANCER

PARTS: Final = ("Context", "Decision", "Evidence", "Consequences")  # of a decision record
ENDINGS: Final = ("blame", "reason", "what it means", "what to do")

# What the documents of the README are written for.
PUBLIC_URL: Final = "https://relay.example.com"
AUTH_TOKEN: Final = "your-auth-token"
CALL_ID: Final = "call_0123456789abcdef01234567"

SETTLED_SECONDS: Final = 30.0  # for the call that the README places

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(TOP)))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(path), flags=re.MULTILINE | re.DOTALL)


def only(found: Iterable[Each]) -> Each:
    (one,) = found
    return one


def table(path: Path, *heads: str) -> list[list[str]]:
    """The rows of the one table with these column heads."""
    lines = iter(text_of(path).splitlines())
    assert any(cells(line) == list(heads) for line in lines), f"no table {heads}"
    next(lines)
    return list(rows(lines))


def rows(lines: Iterator[str]) -> Iterator[list[str]]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield cells(line)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


# ---- pages -------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(there), f"{target}: no such heading"


@page
def test_every_make_target_named_exists(path: Path) -> None:
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make (?:-s )?([a-z-]+)", text_of(path), flags=re.MULTILINE))
    assert named <= targets


@page
def test_every_setting_named_exists(path: Path) -> None:
    assert set(re.findall(r"\b(?:RELAY|TWILIO|ASSEMBLYAI)_[A-Z_]*[A-Z]\b", text_of(path))) <= VARIABLES


@page
def test_every_command_named_exists(path: Path) -> None:
    for words in re.findall(r"(?:`|^|/)relay ((?:[a-z]+ ?)+)", text_of(path), flags=re.MULTILINE):
        assert command_exists(app, words.split()), f"relay {words}"


def command_exists(within: App, words: list[str]) -> bool:
    """Whether the words lead to a command; what follows one that has none below it are its arguments."""
    known = [name for name in within if not name.startswith("-")]
    if not known or not words:
        return True
    return words[0] in known and command_exists(within[words[0]], words[1:])


@page
def test_every_file_named_exists_and_every_test_in_it(path: Path) -> None:
    for name, test in re.findall(
        r"`((?:relay|tests|deploy|scripts|bench|docs)/[\w./@-]+)(?:::(\w+))?`", text_of(path)
    ):
        assert (TOP / name).exists(), f"{name} does not exist"
        assert not test or re.search(rf"^(?:(?:async )?def )?{test}\b", text_of(TOP / name), re.M), (
            f"{name}: no {test}"
        )


def test_every_promise_is_held_by_a_test() -> None:
    promises = table(TOP / "docs" / "reliability.md", "promise", "held by")
    assert len(promises) > 20
    assert [promise for promise, held in promises if "::" not in held and "the same" not in held] == []


# ---- the README --------------------------------------------------------------------------------------------


def test_the_settings_table_is_the_settings() -> None:
    def default(name: str, value: object) -> str:
        if name in Accounts.__dataclass_fields__:
            return "required to serve"
        return "–" if value in (None, (), {}) else f"`{value}`"

    expected = [
        [f"`{field.alias}`", field.description, default(name, field.default)]
        for name, field in Settings.model_fields.items()
    ]
    assert table(README, "name", "meaning", "default") == expected


@pytest.mark.needs_curl
async def test_the_curl_block_places_a_call(tmp_path: Path) -> None:
    block = only(each for each in blocks(README, "sh") if "curl" in each)
    async with open_stage(tmp_path, synthesise=False) as stage:
        # From now on the number in the block leads to a busy telephone.
        await stage.play(shipped_scenario("busy"))
        environment = {
            "PATH": os.environ["PATH"],
            "RELAY_URL": str(stage.http.base_url).rstrip("/"),
            "RELAY_API_TOKEN": API_TOKEN,
        }
        done = await trio.run_process(["sh", "-c", block], env=environment, capture_stdout=True)
        placed = json.loads(done.stdout)
        assert placed.keys() == {"id", "sid", "status", "to", "agent"}
        assert placed["sid"].startswith("CA")
        record: dict[str, Any] = {}
        with trio.fail_after(SETTLED_SECONDS):
            while record.get("status") != "ended":
                await trio.sleep(0.05)
                record = (await stage.http.get(f"/v1/calls/{placed['id']}")).json()
        assert record["ending"] == {"blame": "callee", "reason": "busy"}


def test_the_document_shown_is_the_document_served() -> None:
    lines = [line.strip() for line in only(blocks(README, "xml")).splitlines()]
    shown = "".join(line if line.startswith("<") else f" {line}" for line in lines)
    assert shown == twiml.connect_stream(
        stream_url=twiml.stream_url(PUBLIC_URL),
        token=signature.stream_token(AUTH_TOKEN, CALL_ID, 0),
        status_callback=twiml.stream_status_url(PUBLIC_URL, CALL_ID),
        redirect=twiml.twiml_url(PUBLIC_URL, CALL_ID, attempt=1),
    )


def test_the_session_update_shown_is_what_agents_show_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # no .env and no agents of this machine
    for variable in VARIABLES:
        monkeypatch.delenv(str(variable), raising=False)
    assert app(["agents", "show", "default"], result_action="return_value") == 0
    assert json.loads(only(blocks(README, "json"))) == json.loads(capsys.readouterr().out)


def test_the_agent_shown_can_be_used() -> None:
    profile = read_profile("own", only(blocks(README, "toml")), where="README.md")
    assert isinstance(compose(profile, Overrides(), {"order": "1234"}, ()), dict)
    assert set(profile.tools) <= builtin_tools().keys()


def test_every_key_of_a_profile_has_its_row() -> None:
    def default(field: FieldInfo) -> str:
        if field.is_required():
            return "required"
        is_none = field.default in (None, (), {}, "") or isinstance(field.default, BaseModel)
        return "–" if is_none else f"`{field.default}`"

    keys = {name: field for name, field in Profile.model_fields.items() if name != "name"}
    expected = [[f"`{name}`", field.description, default(field)] for name, field in keys.items()]
    assert table(AGENTS, "key", "meaning", "default") == expected


def test_each_agent_that_ships_has_its_row_and_scenarios_of_its_own() -> None:
    told = table(AGENTS, "agent", "purpose", "scenarios")
    shipped = {path.stem for path in (TOP / "relay" / "agents").glob("*.toml")}
    assert {name.strip("`") for name, *_ in told} == shipped
    for name, _, scenarios in told:
        played = [shipped_scenario(each) for each in re.findall(r"`([^`]+)`", scenarios)]
        assert {each.call.agent for each in played} == {name.strip("`")}


def test_the_limits_shown_are_the_limits() -> None:
    shown = next(block for block in blocks(AGENTS, "toml") if block.startswith("[limits]"))
    limits = tomllib.loads(shown)["limits"]
    assert limits.keys() == Limits.model_fields.keys()
    assert Limits.model_validate(limits) == Limits(call_seconds=limits["call_seconds"])


def test_the_sequence_diagram_speaks_both_protocols() -> None:
    vocabulary = {
        ("T", "R"): tags(phone, received=True) | {f"GET {twiml.STREAM_PATH}"} | webhooks(),
        ("R", "T"): tags(phone, received=False) | {"POST Calls.json", "POST Calls/CA….json"},
        ("A", "R"): tags(agent, received=True),
        ("R", "A"): sent_to_agent(),
        ("O", "R"): {"POST /v1/calls"},
    }
    arrows = re.findall(r"(\w)->>(\w): ([^(\n]+)", only(blocks(README, "mermaid")))
    assert len(arrows) > 20
    for source, sink, message in arrows:
        assert message.strip() in vocabulary[source, sink], f"{source}->>{sink}: {message}"


def tags(wire: Any, *, received: bool) -> set[str]:
    """The names of the messages that a wire module reads (public structs) or writes (private ones)."""
    classes = [each for each in vars(wire).values() if isinstance(each, type)]
    structs = [each for each in classes if issubclass(each, msgspec.Struct)]
    named = [each for each in structs if each.__name__.startswith("_") is not received]
    return {str(each.__struct_config__.tag) for each in named if each.__struct_config__.tag}


def sent_to_agent() -> set[str]:
    texts = [
        agent.session_update({}),
        agent.input_audio(""),
        agent.tool_result("", ""),
        agent.reply_create(""),
        agent.reply_cancel(""),
        agent.session_end(),
    ]
    return {json.loads(text)["type"] for text in texts}


def webhooks() -> set[str]:
    return {f"POST {path}" for path in (twiml.TWIML_PATH, twiml.STATUS_PATH, twiml.STREAM_STATUS_PATH)}


def test_every_ending_has_its_row() -> None:
    told = [(Blame(blame), Reason(reason)) for blame, reason, *_ in table(README, *ENDINGS)]
    assert len(told) == len(set(told))
    assert {reason for _, reason in told} == set(Reason)
    assert endings_in_code() <= set(told)


def endings_in_code() -> set[tuple[Blame, Reason]]:
    """Every pair of a blame and a reason that stands side by side in the code; a lost leg may be either."""
    sources = [text_of(path) for path in (TOP / "relay").rglob("*.py") if "simulator" not in path.parts]
    pairs = re.findall(r"Blame\.([A-Z_]+),\s*Reason\.([A-Z_]+)", "\n".join(sources))
    kinds = re.findall(r"_lost\(\s*Reason\.([A-Z_]+)", "\n".join(sources))
    assert pairs
    assert kinds
    lost = {(blame, Reason[kind]) for blame in (Blame.CARRIER, Blame.AGENT) for kind in kinds}
    return {(Blame[blame], Reason[reason]) for blame, reason in pairs} | lost


def test_every_command_has_its_row() -> None:
    told = {words for row in table(README, "command", "what it does") for words in command_words(row[0])}
    names = {name for name in app if not name.startswith("-")}
    below = {name: [each for each in app[name] if not each.startswith("-")] for name in names}
    assert told == {f"{name} {each}".strip() for name in names for each in below[name] or [""]}


def command_words(cell: str) -> list[str]:
    return re.findall(r"relay ([a-z]+(?: [a-z]+)*)", cell)


# ---- what is made from the code ----------------------------------------------------------------------------


async def test_what_is_made_from_the_code_is_as_make_docs_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOP / "scripts")
    reference = importlib.import_module("reference")
    pages: dict[Path, str] = reference.pages(await reference.openapi())
    assert {path.name for path in pages} >= {
        ".env.example",
        "settings.md",
        "http.md",
        "README.md",
        "metrics.md",
    }
    stale = [str(path.relative_to(TOP)) for path, text in pages.items() if path.read_text("utf-8") != text]
    assert stale == [], "run `make docs` and commit what it writes"


def test_the_reference_of_http_has_every_route_with_its_parameters() -> None:
    page = text_of(TOP / "docs" / "http.md")
    routes = re.findall(r"^### (GET|POST|DELETE|PUT|PATCH) (/\S*)$", page, re.MULTILINE)
    assert {("POST", "/v1/calls"), ("GET", "/readyz"), ("POST", "/twiml")} <= set(routes)
    assert len(routes) == len(set(routes)) > 30
    placing = page.partition("### POST /v1/calls\n")[2].partition("\n### ")[0]
    for row in ("| `idempotency-key` | header |", "| `to` | body |", "| `machine_detection` | body |"):
        assert row in placing


# ---- metrics -----------------------------------------------------------------------------------------------


def test_the_metrics_told_are_those_that_are_counted() -> None:
    expected = [
        [f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels) or "–", each.help]
        for each in CATALOGUE
    ]
    assert table(METRICS, "name", "type", "labels", "what it says") == expected


def test_every_alert_has_its_entry_in_the_runbook_and_its_test() -> None:
    names = alerts("rules.yml", "alert")
    assert names
    assert re.findall(r"^## (.+)$", text_of(RUNBOOK), re.MULTILINE) == names
    assert alerts("rules.test.yml", "alertname") == names
    assert alerts("rules.yml", "runbook") == [f"docs/runbook.md#{name.lower()}" for name in names]


def alerts(name: str, key: str) -> list[str]:
    text = text_of(TOP / "deploy" / "prometheus" / name)
    return re.findall(rf"^ +(?:- )?{key}: (.+)$", text, re.MULTILINE)


def test_every_metric_named_is_counted() -> None:
    shipped = [
        *(TOP / "deploy" / "prometheus").iterdir(),
        *(TOP / "deploy" / "grafana").rglob("*.json"),
        RUNBOOK,
    ]
    named = {name for path in shipped for name in re.findall(r"\brelay_\w+", text_of(path))}
    known = {each.name for each in CATALOGUE}
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in named} <= known


# ---- logs --------------------------------------------------------------------------------------------------

LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
SPREAD = {"**ending.as_json()": ("blame", "reason")}
PHASES = ("draining", "winding up", "cutting")  # a variable where they are logged


def lines_in_code() -> Iterator[tuple[str, str, str, frozenset[str]]]:
    """Event, level, subsystem and fields of each line that some module logs."""
    for path in sorted(TOP.joinpath("relay").rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        loggers = [call for call in calls if ast.unparse(call.func) == "structlog.get_logger"]
        named = [only(logger.keywords).value for logger in loggers]  # each with its subsystem
        for call in calls:
            function = call.func
            if not (isinstance(function, ast.Attribute) and function.attr in LEVELS and named):
                continue
            if ast.unparse(function.value).startswith(("log", "structlog.get_logger(")):
                fields = [name for each in call.keywords for name in names_of(each)]
                fields += ["exception"] if function.attr == "exception" else []
                (subsystem,) = {ast.literal_eval(name) for name in named}
                event = ast.literal_eval(call.args[0]) if isinstance(call.args[0], ast.Constant) else ""
                for each in (event,) if event else PHASES:
                    yield each, LEVELS[function.attr], subsystem, frozenset(fields)


def names_of(keyword: ast.keyword) -> tuple[str, ...]:
    if keyword.arg is None:
        return SPREAD[f"**{ast.unparse(keyword.value)}"]
    return ("exception",) if keyword.arg == "exc_info" else (keyword.arg,)


def test_the_page_tells_every_line_and_its_fields() -> None:
    page = text_of(TOP / "docs" / "logs.md")
    told: dict[tuple[str, str, str], set[str]] = {}
    for row in re.findall(r"^\| `([^`]+)` \| (\w+) \| (\w+) \| ([^|]*) \| [^|]+ \|$", page, re.MULTILINE):
        told.setdefault(row[:3], set()).update(re.findall(r"`(\w+)`", row[3]))
    found: dict[tuple[str, str, str], set[str]] = {}
    for event, level, subsystem, fields in lines_in_code():
        found.setdefault((event, level, subsystem), set()).update(fields)
    assert found.keys() == told.keys()
    assert len(found) > 40
    assert {name: fields for name, fields in found.items() if fields != told[name]} == {}
    assert set(re.findall(r"`(\w+)`", page.partition("`subsystem` |")[2].partition("|")[0])) == set(
        SUBSYSTEMS
    )


# ---- production readiness ----------------------------------------------------------------------------------


def test_every_line_of_the_checklist_leads_to_what_holds_it() -> None:
    page = text_of(READINESS)
    lines = re.findall(r"^- \[ \] (.+(?:\n  .+)*)$", page, re.MULTILINE)
    assert len(lines) > 25
    for line in lines:
        links = re.findall(r"\[([^\]]+)\]\(([^)#\s]+)[^)]*\)", line)
        assert links, line
        for text, target in links:
            if target.startswith("../tests/"):
                assert f"def {text}(" in text_of((READINESS.parent / target).resolve()), text


def test_a_reader_finds_every_page_from_the_readme_in_one_click() -> None:
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(README))}
    pages = {str(path.relative_to(TOP)) for path in (TOP / "docs").glob("*.md")}
    assert pages - linked == set()
    assert "docs/decisions/" in linked


# ---- architecture and decisions ----------------------------------------------------------------------------


def test_the_floors_shown_are_those_that_the_imports_are_held_to() -> None:
    contracts = tomllib.loads(text_of(TOP / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors = [sorted(filter(is_there, re.findall(r"\w+", layer))) for layer in layers if layer != "__main__"]
    shown = [re.split(r" {3,}", line)[0].split() for line in blocks(ARCHITECTURE, "text")[0].splitlines()]
    assert [sorted(floor) for floor in shown] == [floor for floor in floors if floor]


def is_there(module: str) -> bool:
    return (TOP / "relay" / f"{module}.py").exists() or (TOP / "relay" / module / "__init__.py").exists()


def test_the_ownership_tree_names_every_task_of_a_call() -> None:
    named = set(re.findall(r'start_soon\([^\n]*name="([^"]+)"\)', text_of(TOP / "relay" / "call.py")))
    shown = re.sub(r"[\s│├└─]+", " ", blocks(ARCHITECTURE, "text")[2])
    assert named
    assert {name for name in named if name not in shown} == set()


def test_decisions_are_numbered_short_and_give_their_evidence() -> None:
    for number, path in enumerate(RECORDS, start=1):
        text = text_of(path)
        assert path.name.startswith(f"{number:04d}-")
        assert text.startswith(f"# {number}. ")
        assert text.count("\n") <= 40
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(PARTS)
