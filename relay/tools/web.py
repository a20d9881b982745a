"""A tool that asks somebody's HTTP service: what may be reached, and one bounded request of each.

The agent chooses values for a path, a query or a body; host, headers and secrets are the profile's and the
settings'. A name is resolved once, and the connection goes to an address that was looked at: no second answer
of the name server can lead into the private network.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import time
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Literal
from urllib.parse import quote

import httpx
import orjson
import structlog
import trio
from pydantic import BaseModel, ConfigDict, Field, create_model

from relay.profiles import HttpTool, ProfileError
from relay.telemetry.spans import traceparent
from relay.tools import CallContext, Tool, ToolRefused

ANSWER_BYTES = 64 * 1024  # of an answer's body; the agent is told 8 KiB of it at most
CONNECTIONS = 16  # requests under way at once, over all calls; the next one waits within its own deadline
SIGNATURE_HEADER = "X-Relay-Signature"
UNREACHABLE = "That service cannot be reached just now. Say so, and offer another way."

_PLACE = re.compile(r"\{(\w+)\}")
_SECRET = re.compile(r"\$\{(\w+)\}")
_KINDS = {"string": str, "integer": int, "number": float, "boolean": bool}
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that is assigned: beyond it are addresses in disguise

log = structlog.get_logger(subsystem="tools")
Network = Any  # ipaddress has no common base: IPv4Network | IPv6Network


class GuardedTransport(httpx.AsyncBaseTransport):
    """Connects to no address but a public one, or one in `networks`; the name was resolved once."""

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        networks: Collection[Network],
        resolve: Callable[..., Any] = trio.socket.getaddrinfo,
    ) -> None:
        self._inner = inner
        self._networks = networks
        self._resolve = resolve

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx.ConnectError for an address that must not be reached."""
        host = request.url.host
        try:
            found = await self._resolve(host, request.url.port or 443, type=socket.SOCK_STREAM)
        except OSError as problem:
            raise httpx.ConnectError(f"name not resolved: {problem.strerror}") from None
        addresses = [ip_address(entry[4][0].partition("%")[0]) for entry in found]
        if not addresses or not all(self._may_reach(address) for address in addresses):
            raise httpx.ConnectError("the name leads to an address that is not public (RELAY_TOOL_NETWORKS)")
        is_private = any(addresses[0] in network for network in self._networks)
        if request.url.scheme != "https" and not is_private:
            raise httpx.ConnectError("cleartext is for RELAY_TOOL_NETWORKS alone")
        request.extensions = {**request.extensions, "sni_hostname": host}  # the certificate is the name's
        request.url = request.url.copy_with(host=str(addresses[0]))
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()

    def _may_reach(self, address: IPv4Address | IPv6Address) -> bool:
        return is_public(address) or any(address in network for network in self._networks)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the open internet, also by what it carries inside."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


class WebTools:
    """Makes tools of what profiles declare. Close it when no call is left."""

    def __init__(
        self,
        *,
        hosts: Collection[str],
        networks: Collection[str],
        secrets: Mapping[str, str],
        is_traced: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._secrets = secrets
        self._is_traced = is_traced
        self._now = now
        # A kept connection belongs to a name, the pool knows addresses only: so none is kept.
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=0)
        guarded = GuardedTransport(
            httpx.AsyncHTTPTransport(limits=limits, trust_env=False),
            [ip_network(network) for network in networks],
        )
        # Without trust_env: a proxy of the environment would go round the guard. Toolbox holds the deadline.
        self._http = httpx.AsyncClient(transport=guarded, timeout=None, trust_env=False)  # noqa: S113

    async def aclose(self) -> None:
        """Close what is open."""
        await self._http.aclose()

    def make(self, spec: HttpTool, *, where: str) -> Tool:
        """A tool of this declaration. Raises ProfileError, which names `where`, the key and the remedy."""
        place = f"{where}: http_tools.{spec.name}"
        host = httpx.URL(spec.url).host.lower()
        if host not in self._hosts:
            raise ProfileError(f"{place}.url: {host or 'no host'} is not in RELAY_TOOL_HOSTS; add it there")
        wanted = {name for text in spec.headers.values() for name in _SECRET.findall(text)}
        if missing := sorted((wanted | ({spec.secret} if spec.secret else set())) - self._secrets.keys()):
            raise ProfileError(f"{place}: set in the environment: {', '.join(missing)}")
        if unknown := sorted(set(_PLACE.findall(spec.url)) - spec.parameters.keys()):
            raise ProfileError(f"{place}.url: has places without a parameter: {', '.join(unknown)}")
        arguments = _model(spec)

        async def run(call: CallContext, given: BaseModel) -> Any:
            return await self._ask(spec, call, given.model_dump(exclude_none=True))

        return Tool(spec.name, spec.description, arguments, run, seconds=spec.timeout_seconds)

    async def _ask(self, spec: HttpTool, call: CallContext, given: dict[str, Any]) -> Any:
        request = self._request(spec, call, given)
        try:
            answer = await self._http.send(request, stream=True)
            try:
                body = await _read(answer)
            finally:
                await answer.aclose()  # noqa: ASYNC102 - httpx shields it from a cancellation itself
        except httpx.HTTPError as problem:
            log.warning(
                "tool's service failed", tool=spec.name, detail=str(problem) or type(problem).__name__
            )
            raise ToolRefused(UNREACHABLE) from None
        if not answer.is_success:
            log.warning("tool's service refused", tool=spec.name, status=answer.status_code)
            raise ToolRefused(f"The service said no (status {answer.status_code}). Say so, and go on.")
        if not body:
            return {"done": True}
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            log.warning("tool's service sent no JSON", tool=spec.name)
            raise ToolRefused(UNREACHABLE) from None

    def _request(self, spec: HttpTool, call: CallContext, given: dict[str, Any]) -> httpx.Request:
        in_path = set(_PLACE.findall(spec.url))
        rest = {name: value for name, value in given.items() if name not in in_path}
        has_body = spec.method in ("POST", "PUT", "PATCH")
        url = httpx.URL(_PLACE.sub(lambda place: _quoted(given.get(place[1], "")), spec.url))
        if rest and not has_body:
            url = url.copy_merge_params(rest)
        body = orjson.dumps(rest) if has_body else b""
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # no answer that grows while it is unpacked
            # One run of the agent's is one effect, however often it arrives.
            "Idempotency-Key": f"{call.call_id}:{call.run_id}",
            **{name: self._revealed(text) for name, text in spec.headers.items()},
        }
        if self._is_traced:
            headers["traceparent"] = traceparent(call.call_id, call.run_id)
        if has_body:
            headers["Content-Type"] = "application/json"
        if spec.secret:
            headers[SIGNATURE_HEADER] = self._signature(spec, url, body)
        return self._http.build_request(spec.method, url, headers=headers, content=body or None)

    def _revealed(self, text: str) -> str:
        return _SECRET.sub(lambda name: self._secrets[name[1]], text)

    def _signature(self, spec: HttpTool, url: httpx.URL, body: bytes) -> str:
        """`t=SECONDS,v1=HEX`: HMAC-SHA256 over time, method, target and body, a line each."""
        assert spec.secret is not None
        at = int(self._now())
        signed = b"\n".join((str(at).encode(), spec.method.encode(), url.raw_path, body))
        digest = hmac.new(self._secrets[spec.secret].encode(), signed, hashlib.sha256).hexdigest()
        return f"t={at},v1={digest}"


async def _read(answer: httpx.Response) -> bytes:
    """The body. One that is too long is thrown away as it comes, until its end or the tool's deadline."""
    body, length = bytearray(), 0
    async for chunk in answer.aiter_raw():
        length += len(chunk)
        if length <= ANSWER_BYTES:
            body += chunk
    if length > ANSWER_BYTES:
        raise httpx.DecodingError(f"{length} bytes of answer, at most {ANSWER_BYTES} are taken")
    return bytes(body)


def _quoted(value: Any) -> str:
    text = quote(str(value), safe="")
    if text.strip(".") == "":  # nothing, or a step to another folder
        raise ToolRefused("That value cannot be used. Ask the person again.")
    return text


def _model(spec: HttpTool) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for name, parameter in spec.parameters.items():
        kind: Any = _KINDS[parameter.type]
        extra = {"enum": list(parameter.enum)} if parameter.enum else None
        bounds: dict[str, Any] = {"description": parameter.description, "json_schema_extra": extra}
        if parameter.type == "string":
            bounds |= {"pattern": parameter.pattern, "max_length": parameter.max_length}
        else:
            bounds |= {"ge": parameter.minimum, "le": parameter.maximum}
        if parameter.enum:
            kind = Literal[tuple(parameter.enum)]
        fields[name] = (kind, Field(**bounds)) if parameter.required else (kind | None, Field(None, **bounds))
    return create_model(spec.name, __config__=ConfigDict(extra="forbid"), **fields)
