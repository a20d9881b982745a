"""Every query of the alerts and of the dashboard finds data in a real Prometheus, after a simulated load."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio
import yaml

from relay.rehearsal import Stage, free_port, open_stage
from relay.simulator.scenario import shipped_scenario
from tests.e2e.scenes import AGENTS, scene

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
COMPARISON: Final = re.compile(r"\s*[<>] [\d.]+$")

pytestmark = [pytest.mark.slow, pytest.mark.needs_promtool]

# What a dashboard asks of Grafana, as Grafana would fill it in for scrapes twice a second.
FILLED_IN: Final = {"$instance": ".*", "$__rate_interval": "1m"}


def queries() -> Iterator[tuple[str, str]]:
    """Each one, and where it stands; an alert without the comparison that makes it ring."""
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]:
        before, number = COMPARISON.subn("", rule["expr"])
        assert number == 1, rule["expr"]
        yield rule["alert"], before
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "relay.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in FILLED_IN.items():
                query = query.replace(name, value)
            yield f"{panel['title']} {target['refId']}", query


@asynccontextmanager
async def open_prometheus(folder: Path, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """A Prometheus with the configuration that ships, but for whom it scrapes and how often."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    (scraped,) = config["scrape_configs"]
    scraped["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    shutil.copy(DEPLOY / "prometheus" / "rules.yml", folder)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    async with (
        trio.open_nursery() as nursery,
        httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=10) as http,
    ):
        start = partial(trio.run_process, command, stdout=subprocess.DEVNULL, check=False)
        process: trio.Process = await nursery.start(start)
        with trio.fail_after(30):
            while not await is_up(http):
                assert process.returncode is None
                await trio.sleep(0.1)
        yield http
        nursery.cancel_scope.cancel()


async def is_up(http: httpx.AsyncClient) -> bool:
    try:
        up = await ask(http, 'up{job="relay"} == 1')
    except (httpx.TransportError, json.JSONDecodeError):  # it answers in words while it starts
        return False
    return bool(up)


async def ask(http: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
    answer = (await http.get("/api/v1/query", params={"query": query})).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def has_a_number(result: list[dict[str, Any]]) -> bool:
    return any(series["value"][1] != "NaN" for series in result)


async def play_a_day(stage: Stage) -> None:
    """A bit of everything that the queries are about, side by side."""
    leaving = {"turn": [{"say": "Yes?", "pause_seconds": 0.2}, {"press": "9", "pause_seconds": 0.5}]}
    listed = "+12025550177"
    assert (await stage.http.post("/v1/dnc", json={"number": listed, "source": "letter"})).status_code < 300
    forbidden = {"to": listed, "variables": {"business": "Office", **scene("listed").call.variables}}
    answer = await stage.http.post("/v1/calls", json=forbidden)
    assert answer.status_code == 403, answer.text
    unknown = {"to": "+12025550178", "agent": "nobody-of-that-name"}
    assert (await stage.http.post("/v1/calls", json=unknown)).status_code == 422
    assert (await stage.http.post("/twiml?call=call_0")).status_code == 403
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.play, scene("tool"))
            nursery.start_soon(stage.play, shipped_scenario("talkative"))
            nursery.start_soon(stage.play, scene("opt-out", callee=leaving))


async def test_every_query_of_alerts_and_dashboard_finds_data(tmp_path: Path) -> None:
    async with open_stage(
        tmp_path, seed=1, synthesise=False, own_process=True, RELAY_AGENTS_DIR=str(AGENTS)
    ) as stage:
        target = f"127.0.0.1:{stage.http.base_url.port}"
        async with open_prometheus(tmp_path, target) as prometheus:
            await play_a_day(stage)
            missing = dict(queries())
            with trio.move_on_after(15):  # until the last scrape is in
                while missing:
                    await trio.sleep(0.5)
                    for name, query in list(missing.items()):
                        if has_a_number(await ask(prometheus, query)):
                            del missing[name]
            assert missing == {}
            rules = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
            assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}


def test_a_query_for_what_nobody_counts_would_be_noticed() -> None:
    assert not has_a_number([])
    assert not has_a_number([{"value": [0, "NaN"]}])
    names = [name for name, _ in queries()]
    assert len(names) == len(set(names)) > 60
