"""Everything in deploy/ is read by its own tool where that tool can run here, and parsed where it cannot.

The balancers are also tried: between a client and two nodes that say only who they are and how they feel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio
import trustme
import yaml

from relay.rehearsal import free_port
from relay.service import CUT_SECONDS, WIND_UP_STAGE_SECONDS
from relay.settings import Settings

TOP: Final = Path(__file__).parent.parent
DEPLOY: Final = TOP / "deploy"
CARRIERS: Final = ("/twiml", "/twilio/status", "/livez")

LONGEST_CALL_SECONDS: Final = next(
    bound.le for bound in Settings.model_fields["max_call_seconds"].metadata if hasattr(bound, "le")
)
# A stop lasts this long with the settings as they come; then everything left is killed.
STOP_SECONDS: Final = Settings.model_fields["drain_seconds"].default + WIND_UP_STAGE_SECONDS + CUT_SECONDS


def run(*command: str, **environment: str) -> str:
    """What a tool says of a file; it must say that the file is good."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def haproxy() -> str:
    """Debian keeps it off the path of ordinary users, as the next one."""
    return shutil.which("haproxy") or "/usr/sbin/haproxy"


def nginx() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Chain and key in one file."""
    path = tmp_path / "certificate.pem"
    trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(path)
    return path


@dataclass
class Node:
    """What a balancer sees of a node."""

    name: str
    port: int = field(default_factory=free_port)
    is_alive: bool = True
    is_ready: bool = True
    dies_of_orders: bool = False
    asked: list[str] = field(default_factory=list)

    async def answer(self, stream: trio.SocketStream) -> None:
        """One connection."""
        async with stream:
            head = b""
            while True:
                while b"\r\n\r\n" not in head:
                    chunk = await stream.receive_some(4096)
                    if not chunk:
                        return
                    head += chunk
                request, _, head = head.partition(b"\r\n\r\n")
                if b"upgrade: websocket" in request.lower():
                    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\n")
                    await stream.send_all(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
                    await stream.send_all(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
                    async for frame in stream:
                        await stream.send_all(self.name.encode() + frame)
                    return
                answer = self._respond(request.decode())
                if self.dies_of_orders and b"POST /v1/" in request:
                    return
                await stream.send_all(answer)

    def _respond(self, request: str) -> bytes:
        path = request.split()[1].partition("?")[0]
        is_good = self.is_alive and (path == "/livez" or self.is_ready)
        if path in ("/livez", "/readyz"):
            status = "200 OK" if is_good else "503 Service Unavailable"
        else:
            self.asked.append(request)
            is_refused = path.startswith("/v1/") and not self.is_ready
            status = "503 Service Unavailable" if is_refused else "200 OK"
        return f"HTTP/1.1 {status}\r\nContent-Length: {len(self.name)}\r\n\r\n{self.name}".encode()


@dataclass
class Front:
    """A balancer between a client and two nodes."""

    http: httpx.AsyncClient
    port: int
    nodes: tuple[Node, Node]

    async def wait(self, path: str, expected: set[str]) -> None:
        """Until these nodes and no others answer."""
        with trio.fail_after(20):
            while {(await self.http.get(path)).text for _ in range(6)} != expected:  # noqa: ASYNC110
                await trio.sleep(0.1)


@asynccontextmanager
async def open_front(
    nursery: trio.Nursery, command: list[str], url: str, **environment: str
) -> AsyncIterator[Front]:
    a, b = Node("a", int(environment["PORT_A"])), Node("b", int(environment["PORT_B"]))
    for node in (a, b):
        await nursery.start(_serve_node, node)
    process = await nursery.start(_run_balancer, command, {**os.environ, **environment})
    async with httpx.AsyncClient(base_url=url, verify=False, trust_env=False, timeout=20) as http:
        with trio.fail_after(20):
            while True:
                try:
                    if (await http.get("/livez")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert process.returncode is None
                await trio.sleep(0.1)
        yield Front(http, int(url.rpartition(":")[2]), (a, b))
    process.kill()


async def a_stream_passes(stream: trio.abc.Stream) -> None:
    """An upgrade reaches a node, and bytes go both ways behind it."""
    async with stream:
        await stream.send_all(b"GET /twilio-stream HTTP/1.1\r\nHost: relay.test\r\nConnection: Upgrade\r\n")
        await stream.send_all(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
        await stream.send_all(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        received = b""
        with trio.fail_after(10):
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some(4096)
            assert received.startswith(b"HTTP/1.1 101")
            await stream.send_all(b"frame")
            assert await stream.receive_some(4096) in (b"aframe", b"bframe")


async def _serve_node(node: Node, task_status: trio.TaskStatus[Any]) -> None:  # noqa: ASYNC128 - trio does
    async def answer(stream: trio.SocketStream) -> None:
        try:
            await node.answer(stream)
        except trio.BrokenResourceError:
            pass  # a health check that has seen enough

    await trio.serve_tcp(answer, node.port, host="127.0.0.1", task_status=task_status)


async def _run_balancer(  # noqa: ASYNC128 - trio does
    command: list[str], environment: dict[str, str], task_status: trio.TaskStatus[trio.Process]
) -> None:
    await trio.run_process(
        command, env=environment, stdout=subprocess.DEVNULL, check=False, task_status=task_status
    )


# ---- HAProxy -----------------------------------------------------------------------------------------------


def haproxy_settings(certificate: Path) -> dict[str, str]:
    a, b = free_port(), free_port()
    return {
        "PORT_A": str(a),
        "PORT_B": str(b),
        "RELAY_NODE_A": f"127.0.0.1:{a}",
        "RELAY_NODE_B": f"127.0.0.1:{b}",
        "BALANCER_HTTP": f"127.0.0.1:{free_port()}",
        "BALANCER_HTTPS": f"127.0.0.1:{free_port()}",
        "BALANCER_CERTIFICATE": str(certificate),
    }


@pytest.mark.needs_haproxy
def test_haproxy_takes_its_file(certificate: Path) -> None:
    run(haproxy(), "-c", "-f", str(DEPLOY / "haproxy.cfg"), **haproxy_settings(certificate))


@pytest.mark.slow
@pytest.mark.needs_haproxy
async def test_haproxy_prefers_nodes_that_are_ready_and_falls_back_on_those_that_live(
    certificate: Path, nursery: trio.Nursery
) -> None:
    settings = haproxy_settings(certificate)
    command = [haproxy(), "-db", "-f", str(DEPLOY / "haproxy.cfg")]
    url = f"http://{settings['BALANCER_HTTP']}"
    async with open_front(nursery, command, url, **settings) as front:
        a, b = front.nodes
        await front.wait("/v1/calls", {"a", "b"})
        for path in ("/metrics", "/", "/v1", "/other", "/twiml/x"):
            assert (await front.http.get(path)).status_code == 404
        b.is_ready = False  # it drains, and the balancer does not know yet
        for _ in range(6):
            assert (await front.http.post("/v1/calls", json={"to": "+12025550143"})).text == "a"
        await front.wait("/v1/calls", {"a"})
        a.dies_of_orders = True  # an order may have been carried out: it is nobody else's
        ordered = len(a.asked)
        with pytest.raises(httpx.HTTPError):  # a 502, or the end of the connection
            (await front.http.post("/v1/calls", json={"to": "+12025550143"})).raise_for_status()
        assert len(a.asked) == ordered + 1
        a.dies_of_orders = False
        for path in CARRIERS:
            await front.wait(path, {"a"})
        a.is_ready = False
        with trio.fail_after(20):  # nobody takes calls: whoever lives says why
            while (await front.http.post("/v1/calls")).status_code != 503:  # noqa: ASYNC110
                await trio.sleep(0.1)
        assert (await front.http.post("/v1/calls")).text in ("a", "b")
        for path in CARRIERS:
            await front.wait(path, {"a", "b"})
        b.is_alive = False
        for path in CARRIERS:
            await front.wait(path, {"a"})
        await front.http.get("/twiml", headers={"X-Forwarded-For": "192.0.2.66"})
        assert "x-forwarded-for: 127.0.0.1" in a.asked[-1].lower()
        assert "192.0.2.66" not in a.asked[-1]
        await a_stream_passes(await trio.open_tcp_stream("127.0.0.1", front.port))
    nursery.cancel_scope.cancel()


# ---- nginx -------------------------------------------------------------------------------------------------


def nginx_file(
    folder: Path, certificate: Path, listen: int = 443, ports: tuple[int, int] = (8081, 8082)
) -> Path:
    """The file as it ships, with the certificate and the ports of this test."""
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    for shipped, ours in (
        ("/etc/relay/certificate.pem", str(certificate)),
        ("/etc/relay/certificate.key", str(certificate)),
        ("listen 443 ssl", f"listen 127.0.0.1:{listen} ssl"),
        ("127.0.0.1:8081", f"127.0.0.1:{ports[0]}"),
        ("127.0.0.1:8082", f"127.0.0.1:{ports[1]}"),
    ):
        assert shipped in text
        text = text.replace(shipped, ours)
    path = folder / "nginx.conf"
    path.write_text(f"pid {folder}/nginx.pid;\nerror_log stderr;\n{text}", "utf-8")
    return path


@pytest.mark.needs_nginx
def test_nginx_takes_its_file(tmp_path: Path, certificate: Path) -> None:
    run(nginx(), "-t", "-c", str(nginx_file(tmp_path, certificate)))


@pytest.mark.slow
@pytest.mark.needs_nginx
async def test_nginx_asks_the_next_node_where_one_takes_no_calls(
    tmp_path: Path, certificate: Path, nursery: trio.Nursery
) -> None:
    listen, ports = free_port(), (free_port(), free_port())
    path = nginx_file(tmp_path, certificate, listen, ports)
    command = [nginx(), "-g", "daemon off;", "-c", str(path)]
    nodes = {"PORT_A": str(ports[0]), "PORT_B": str(ports[1])}
    async with open_front(nursery, command, f"https://127.0.0.1:{listen}", **nodes) as front:
        a, b = front.nodes
        await front.wait("/v1/calls", {"a", "b"})
        for secret in ("/metrics", "/", "/other"):
            assert (await front.http.get(secret)).status_code == 404
        b.is_ready = False
        for _ in range(6):
            placed = await front.http.post("/v1/calls", json={})
            assert (placed.status_code, placed.text) == (200, "a")
        for each in CARRIERS:
            await front.wait(each, {"a", "b"})
        await front.http.get(
            "/twiml", headers={"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66"}
        )
        assert "192.0.2.66" not in "".join(a.asked + b.asked)
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        await a_stream_passes(
            await trio.open_ssl_over_tcp_stream(
                "127.0.0.1", front.port, ssl_context=tls, https_compatible=True
            )
        )
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("haproxy.cfg", r"(?:timeout tunnel|hard-stop-after) (\d+)m"),
        ("nginx.conf", r"(?:proxy_read_timeout|proxy_send_timeout|worker_shutdown_timeout) (\d+)m"),
    ],
)
def test_no_balancer_cuts_the_longest_call(name: str, pattern: str) -> None:
    found = re.findall(pattern, (DEPLOY / name).read_text("utf-8"))
    assert len(found) >= 2
    assert all(int(minutes) * 60 > LONGEST_CALL_SECONDS for minutes in found)


# ---- systemd -----------------------------------------------------------------------------------------------


@pytest.mark.needs_systemd
def test_systemd_takes_the_unit_and_finds_it_locked_up(tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / "relay@.service").read_text("utf-8")
    unit = tmp_path / "relay@8081.service"
    unit.write_text(text.replace("/usr/local/bin/relay", shutil.which("true") or "/bin/true"), "utf-8")
    assert run("systemd-analyze", "verify", "--man=no", str(unit)) == ""
    run("systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(unit))


def test_every_stop_waits_for_the_drain() -> None:
    unit = (DEPLOY / "systemd" / "relay@.service").read_text("utf-8")
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) > STOP_SECONDS
    pod = only(kubernetes(), "Deployment")["spec"]["template"]["spec"]
    pause_seconds = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > STOP_SECONDS + pause_seconds
    for name in ("relay-a", "relay-b", "balancer"):
        assert minutes(compose()["services"][name]["stop_grace_period"]) * 60 > STOP_SECONDS


def minutes(text: str) -> int:
    assert text.endswith("m")
    return int(text.removesuffix("m"))


# ---- Prometheus --------------------------------------------------------------------------------------------


@pytest.mark.needs_promtool
@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules.test.yml"),
    ],
)
def test_promtool_takes_the_files_and_each_alert_rings_when_it_must(command: tuple[str, ...]) -> None:
    *words, name = command
    run("promtool", *words, str(DEPLOY / "prometheus" / name))


# ---- parsed only: what would need a container engine or a cluster ------------------------------------------


def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return parsed


def kubernetes() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "relay.yaml").read_text("utf-8")))


def only(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (one,) = (document for document in documents if document["kind"] == kind)
    return one


def test_the_composition_names_what_exists() -> None:
    services = compose()["services"]
    assert services.keys() == {"relay-a", "relay-b", "postgres", "balancer", "prometheus", "grafana"}
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose()["volumes"] or (DEPLOY / source).exists(), f"{name}: {source}"
        for other in service.get("depends_on", []):
            assert other in services
    for node in (services["relay-a"], services["relay-b"]):
        assert node["read_only"] is True
        assert node["cap_drop"] == ["ALL"]
        assert {name for name in node["environment"] if name.startswith("RELAY_")} <= settings_names()
        assert (TOP / node["build"]["dockerfile"]).exists()


def test_the_composition_gives_the_balancer_what_its_file_asks_for() -> None:
    asked = set(re.findall(r'"\$\{(\w+)\}"', (DEPLOY / "haproxy.cfg").read_text("utf-8")))
    assert asked == compose()["services"]["balancer"]["environment"].keys()


def test_the_cluster_routes_new_calls_by_readiness_and_all_else_to_every_pod() -> None:
    documents = kubernetes()
    services = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "Service"}
    assert "publishNotReadyAddresses" not in services["relay-taking-calls"]
    assert services["relay-alive"]["publishNotReadyAddresses"] is True
    (rule,) = only(documents, "Ingress")["spec"]["rules"]
    routes = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert routes == {
        "/v1": "relay-taking-calls",
        "/readyz": "relay-taking-calls",
        "/twiml": "relay-alive",
        "/twilio": "relay-alive",
        "/twilio-stream": "relay-alive",
        "/livez": "relay-alive",
        "/openapi.json": "relay-alive",
    }


def test_the_pods_are_locked_up_and_never_all_gone() -> None:
    documents = kubernetes()
    deployment = only(documents, "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert {each["name"] for each in container["env"]} <= settings_names()
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    disruption = only(documents, "PodDisruptionBudget")["spec"]
    assert disruption["selector"] == deployment["selector"]
    assert disruption["maxUnavailable"] == 1 < deployment["replicas"]


def test_the_image_is_built_from_what_is_there_and_runs_as_nobody_in_particular() -> None:
    instructions = list(dockerfile())
    assert {word for word, _ in instructions} <= {
        "FROM", "RUN", "WORKDIR", "COPY", "ARG", "ENV", "VOLUME", "USER", "EXPOSE", "STOPSIGNAL",
        "HEALTHCHECK", "ENTRYPOINT", "CMD",
    }  # fmt: skip
    words = dict(instructions)  # the last of each
    assert words["USER"].split(":")[0].isdigit()
    assert words["USER"] != "0:0"
    assert "/livez" in words["HEALTHCHECK"]
    assert words["STOPSIGNAL"] == "SIGTERM"
    assert set(re.findall(r"RELAY_\w+(?==)", words["ENV"])) <= settings_names()
    shipped = (TOP / ".dockerignore").read_text("utf-8").splitlines()
    for _, sources in (each for each in instructions if each[0] == "COPY" and "--from" not in each[1]):
        for source in sources.split()[:-1]:
            assert (TOP / source).exists()
            assert any(f"!{part}" in shipped for part in parts(source)), f"{source} is in .dockerignore"


def test_grafana_finds_its_dashboards_where_the_composition_puts_them() -> None:
    provisioned = DEPLOY / "grafana" / "provisioning" / "dashboards" / "relay.yml"
    (provider,) = yaml.safe_load(provisioned.read_text("utf-8"))["providers"]
    volumes = dict(each.split(":")[:2] for each in compose()["services"]["grafana"]["volumes"])
    assert volumes["./grafana/dashboards"] == provider["options"]["path"]
    assert (DEPLOY / "grafana" / "dashboards").is_dir()
    (source,) = yaml.safe_load(
        (DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose()["services"]


def test_every_file_here_is_held_by_some_test() -> None:
    """By its name in a test, or in a file here that a test reads or builds."""
    sources = [*(TOP / "tests").rglob("*.py"), TOP / "Makefile", DEPLOY / "binary" / "relay.spec"]
    told = "\n".join(path.read_text("utf-8") for path in sources)
    shipped = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(shipped) > 12
    assert [str(path) for path in shipped if path.name not in told] == []
    page = (TOP / "docs" / "deploying.md").read_text("utf-8")
    assert [top.name for top in DEPLOY.iterdir() if f"`{top.name}" not in page] == []


def test_the_dashboard_has_the_form_that_grafana_reads() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "relay.json").read_text("utf-8"))
    provisioned = DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(provisioned.read_text("utf-8"))["datasources"]
    assert isinstance(dashboard["schemaVersion"], int)
    assert {"uid", "title", "panels", "templating", "time"} <= dashboard.keys()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in ("row", "stat", "timeseries")
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"instance", "__rate_interval"}
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["instance"]


def parts(source: str) -> Iterator[str]:
    path = Path(source)
    yield str(path)
    yield from (str(parent) for parent in path.parents)


def dockerfile() -> Iterator[tuple[str, str]]:
    """Instructions and what follows them, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        yield word, rest


def settings_names() -> set[str]:
    return {str(each.alias) for each in Settings.model_fields.values()}
