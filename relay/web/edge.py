"""The hardened edge: Hypercorn's protocol over connections that no peer can hang, flood or bring down.

Must not know what is served: no routes, no calls, no signatures; an ASGI application and an address are all.

Hypercorn parses HTTP and speaks ASGI; the connection around it is ours. In stock Hypercorn 0.18 under Trio
one malformed upgrade request ends the process, a send waits for ever, and a WebSocket keeps four tasks. Here:

- what Hypercorn would stumble over is refused before it is looked at (`_refusal`);
- an exception ends its own connection only, and every wait for the peer has a deadline;
- once the socket is of no more use, everything that served it is cancelled: nothing is left behind;
- a WebSocket leaves Hypercorn before its first frame: the route finds its `Connection` in
  `scope["state"]["connection"]`, calls `detach()`, accepts, and then owns the stream that `take()` returns.

Hypercorn is pinned exactly, and a test asserts the internals that this rests on.
"""

import math
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import h11
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    LifespanState,
    Scope,
)
from hypercorn.utils import parse_socket_addr

from relay.streams import SocketStream, harden

log = structlog.get_logger(subsystem="web")

# Connections that the kernel holds ready while the loop is busy; beyond it, clients try again by themselves.
BACKLOG = 1024
# A long answer is sent in pieces, so that only a reader that has stopped is cut off, not a slow one.
PIECE_BYTES = 64 * 1024
# A WebSocket key: 16 bytes in base64.
KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much the edge bears from its peers. The defaults are for production."""

    # A request head must be complete this long after its first byte (the first one: after connecting).
    head_seconds: float = 5.0
    # A body must be complete this long after its head.
    body_seconds: float = 10.0
    # The wait for another request. Longer than the 60 s of common reverse proxies, so that they close first:
    # a proxy whose request meets our close answers 502 to a webhook that may not be repeated.
    keep_alive_seconds: float = 75.0
    # One piece of an answer must have been taken by the kernel in this time: 20 kB/s is the slowest reader.
    send_seconds: float = 3.0
    # How long we read on after our last word, so that a reset does not destroy it on its way.
    linger_seconds: float = 1.0
    # For requests in flight once the edge is to stop, and again for the application's own shutdown.
    grace_seconds: float = 3.0
    # At this many a new connection is closed at once. Calls do not count: their connections have left. With
    # two descriptors for each of 200 calls this stays within the usual 1024.
    connections: int = 512
    # The largest request head; a larger one is answered 431.
    head_bytes: int = 16 * 1024
    # One read, and how many of them wait for the application. Then we stop reading, and the body's deadline
    # decides: an application that reads nothing costs 160 kB.
    receive_bytes: int = 16 * 1024
    queued_reads: int = 10


@dataclass(frozen=True, slots=True)
class _Site:
    """What all connections share."""

    app: ASGIFramework
    limits: Limits
    config: Config
    context: WorkerContext
    state: LifespanState


class DetachRefused(Exception):
    """This connection cannot leave Hypercorn; the text says why."""


class _Refused(Exception):
    """A request was answered with an error before the application saw it; the connection is to end."""


class Connection:
    """One connection, from accept to close, or until a call takes it over.

    Tasks: this one reads; the application runs in another. The first of these to find that the socket is of
    no more use ends both by `_hang_up`.
    """

    def __init__(self, site: _Site) -> None:
        self._site = site
        self._limits = site.limits
        self._scope = trio.CancelScope()  # around everything that serves this connection
        self._receiving = trio.CancelScope()  # around one receive_some alone
        self._deadline = math.inf  # for the bytes that are due next
        self._idle = True  # between requests, or before the first
        self._reading = True
        self._reader_stopped = trio.Event()
        self._detached = False
        self._taken = False
        self._torn = False
        self._send_lock = trio.Lock()
        self._stream: trio.SocketStream
        self._protocol: _Protocol

    async def detach(self) -> None:
        """Take the reader away from a WebSocket request, before it is accepted.

        Raises `DetachRefused` when there is no such request, when it has been answered, when the peer is
        gone, or when bytes came before the answer that allows them. Then answer 400.
        """
        request = self._protocol.stream
        if self._detached or not isinstance(request, WSStream) or request.handshake.accepted:
            raise DetachRefused("not a WebSocket request that waits to be accepted")
        self._detached = True
        self._stop_reading()
        await self._reader_stopped.wait()
        if request.closed or self._scope.cancel_called:
            raise DetachRefused("the peer is gone, or did not wait for the answer")
        # permessage-deflate would cost more than it saves on base64 audio; unread, it is not offered back.
        request.handshake.extensions = None

    def take(self) -> SocketStream:
        """Move the connection out of the edge, after detaching and accepting. The caller closes it.

        Raises `DetachRefused` when the connection was lost in between.
        """
        request = self._protocol.stream
        if not self._detached or not isinstance(request, WSStream) or not request.handshake.accepted:
            raise DetachRefused("not detached and accepted")
        if request.closed or self._taken or self._scope.cancel_called:
            raise DetachRefused("the connection is closed")
        self._taken = True
        request.closed = True  # Hypercorn has nothing more to say or to log
        return SocketStream.adopt(self._stream)

    async def run(self, stream: trio.SocketStream) -> None:
        """Serve one connection to its end. Raises nothing but cancellation; the caller closes the stream."""
        self._stream = stream
        try:
            with self._scope:
                async with TaskGroup() as tasks:
                    self._protocol = self._open_protocol(tasks)
                    self._deadline = trio.current_time() + self._limits.head_seconds
                    await self._read()
                    if not self._detached:
                        self._hang_up()
        except* OSError:  # gone before we could ask for its address
            pass
        except* Exception as errors:
            log.warning("web connection failed", exc_info=errors)
        if not self._taken and not self._torn:
            await self._linger()

    def wind_down(self) -> None:
        """End a connection that waits for a request; one that serves a request ends after it."""
        if self._idle:
            self._stop_reading()

    def _open_protocol(self, tasks: TaskGroup) -> "_Protocol":
        site, sock = self._site, self._stream.socket
        app, state = ASGIWrapper(self._serve), ConnectionState(site.state.copy())
        peer = parse_socket_addr(sock.family, sock.getpeername())
        here = parse_socket_addr(sock.family, sock.getsockname())
        # False: without TLS, which ends at the load balancer.
        return _Protocol(app, site.config, site.context, tasks, state, False, peer, here, self._send)

    async def _read(self) -> None:
        # The scope to be cancelled is around receive_some alone: around the protocol it would cut answers.
        try:
            while self._reading:
                with trio.CancelScope(deadline=self._deadline) as self._receiving:
                    received = await self._stream.receive_some(self._limits.receive_bytes)
                if self._receiving.cancelled_caught or not received:
                    break
                # While a request sent ahead or an unread body blocks this, we would not hear the peer leave.
                with trio.move_on_after(self._limits.body_seconds) as patience:
                    await self._protocol.handle(RawData(bytes(received)))
                request = self._protocol.stream
                early = isinstance(request, WSStream) and request.closed  # before the 101; answered 400
                if patience.cancelled_caught or early:
                    break
                self._expect_more()
        except (_Refused, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._reader_stopped.set()

    def _expect_more(self) -> None:
        """Set the deadline for what is due next: the rest of a head, the rest of a body, or nothing."""
        connection = self._protocol.connection
        if connection.their_state is h11.IDLE and connection.trailing_data[0]:
            self._deadline = min(self._deadline, trio.current_time() + self._limits.head_seconds)
        elif connection.their_state not in {h11.IDLE, h11.SEND_BODY}:
            self._deadline = math.inf

    def _stop_reading(self) -> None:
        self._reading = False
        self._receiving.cancel()

    async def _serve(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        scope["state"]["connection"] = self  # Hypercorn gives each request a copy of the state
        try:
            await self._site.app(scope, receive, partial(self._answer, send))
        except Exception:
            log.warning("web request failed", exc_info=True)
            raise  # Hypercorn answers 500

    async def _answer(self, send: ASGISendCallable, message: ASGISendEvent) -> None:
        if message["type"] == "websocket.accept" and not self._detached:
            raise RuntimeError("a WebSocket is accepted only after detach()")  # 403 by Quart, else 500
        await send(message)

    async def _send(self, event: Event) -> None:
        """What Hypercorn's protocol wants done with the connection."""
        match event:
            case RawData():
                await self._send_bytes(event.data)
            case Closed():
                self._hang_up()
            case Updated():
                self._idle = event.idle
                due = self._limits.keep_alive_seconds if event.idle else self._limits.body_seconds
                self._deadline = self._receiving.deadline = trio.current_time() + due

    async def _send_bytes(self, data: bytes) -> None:
        if self._scope.cancel_called:
            # Nobody listens. Without this a loop that sends would never again let another task run.
            await trio.lowlevel.checkpoint()
            return
        # Shielded, so that a cancelled application does not cut its last words in half; but not for long, and
        # a long answer only until its first piece is out.
        with trio.move_on_after(self._limits.send_seconds, shield=True) as patience:
            try:
                async with self._send_lock:
                    for start in range(0, len(data), PIECE_BYTES):
                        await self._stream.send_all(data[start : start + PIECE_BYTES])
                        patience.deadline = trio.current_time() + self._limits.send_seconds
                        patience.shield = False
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._hang_up()
            except trio.Cancelled:
                self._torn = True
                self._hang_up()
                raise

    def _hang_up(self) -> None:
        """The socket is of no more use: end everything that serves it."""
        self._scope.cancel()

    async def _linger(self) -> None:
        # Closing with bytes unread sends a reset, and that destroys the answer on its way to the peer.
        gone = suppress(trio.BrokenResourceError, trio.ClosedResourceError)
        with trio.move_on_after(self._limits.linger_seconds), gone:
            await self._stream.send_eof()
            while await self._stream.receive_some(self._limits.receive_bytes):
                pass


class _Protocol(H11Protocol):
    """Hypercorn's HTTP/1.1, behind a look at each request before anything is made of it."""

    async def _check_protocol(self, event: h11.Request) -> None:
        # Not calling the inherited method is the point: it is the door to HTTP/2.
        status = _refusal(event, self.connection.trailing_data[0])
        if status is not None:
            await self._send_error_response(status)
            raise _Refused


def _refusal(request: h11.Request, buffered: bytes) -> int | None:
    """The status for a request that must not reach Hypercorn or the application, None for any other."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        headers.setdefault(name, []).append(value)
    if request.http_version not in {b"1.0", b"1.1"}:
        return 505  # also HTTP/2 with prior knowledge
    if not request.target.startswith(b"/"):
        return 400  # proxies' forms; Quart fails on some of them
    if b"content-length" in headers and b"transfer-encoding" in headers:
        return 400  # RFC 9112, 6.3: where two readers disagree, a request can be smuggled
    if b"upgrade" in headers and not _is_websocket_request(request, headers, buffered):
        return 400  # RFC 6455, 4.2.1; h2c and anything else
    return None


def _is_websocket_request(request: h11.Request, headers: dict[bytes, list[bytes]], buffered: bytes) -> bool:
    """Whether this is the opening handshake of RFC 6455, alone and complete."""
    tokens = b",".join(headers.get(b"connection", [])).lower().split(b",")
    return (
        request.method == b"GET"
        and request.http_version == b"1.1"
        and [value.strip().lower() for value in headers[b"upgrade"]] == [b"websocket"]
        and b"upgrade" in {token.strip() for token in tokens}
        and headers.get(b"sec-websocket-version") == [b"13"]
        and [KEY.fullmatch(key) is not None for key in headers.get(b"sec-websocket-key", [])] == [True]
        # Hypercorn decodes some of these as ASCII, unprepared for a failure.
        and all(value.isascii() for values in headers.values() for value in values)
        and not buffered  # nothing may follow before the 101, neither a body nor a frame
        and b"transfer-encoding" not in headers
        and headers.get(b"content-length", [b"0"]) == [b"0"]
    )


async def serve(
    app: ASGIFramework,
    bind: str,
    *,
    stop: trio.Event,
    limits: Limits = Limits(),
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on `host:port` until `stop` is set; starts with the address it is bound to.

    Then no connection is accepted any more, requests in flight have `grace_seconds`, and it returns within
    twice that and `send_seconds`, whatever the peers do. A connection that was taken over lives on.

    Raises `ValueError` for an unreadable address, `OSError` when it cannot be bound, and a group with
    Hypercorn's `LifespanFailureError` when the application cannot start.
    """
    site = _Site(app, limits, _config(limits), WorkerContext(None), LifespanState({}))
    lifespan = Lifespan(ASGIWrapper(app), site.config, site.state)
    with _listen(bind) as listening_socket:
        async with trio.open_nursery() as application:
            await application.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            task_status.started(listening_socket.getsockname()[:2])
            await _serve_connections(site, listening_socket, stop)
            with trio.move_on_after(limits.grace_seconds):
                await lifespan.wait_for_shutdown()
            application.cancel_scope.cancel()


async def _serve_connections(site: _Site, listening_socket: socket.socket, stop: trio.Event) -> None:
    connections: set[Connection] = set()

    async def serve_one(stream: trio.SocketStream) -> None:
        if len(connections) >= site.limits.connections:
            log.warning("web connection refused at the cap", connections=len(connections))
            return
        connection = Connection(site)
        connections.add(connection)
        try:
            await connection.run(stream)
        finally:
            connections.discard(connection)

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening_socket))
    async with trio.open_nursery() as serving:
        async with trio.open_nursery() as accepting:
            accept = partial(trio.serve_listeners, serve_one, [listener], handler_nursery=serving)
            accepting.start_soon(accept)
            await stop.wait()
            accepting.cancel_scope.cancel()
        serving.cancel_scope.deadline = trio.current_time() + site.limits.grace_seconds
        await site.context.terminated.set()  # from now on an answer ends its connection
        for connection in connections:
            connection.wind_down()


def _listen(bind: str) -> socket.socket:
    address = urlsplit(f"//{bind}")
    if not address.hostname or address.port is None:
        raise ValueError(f"not an address and port: {bind!r}")
    family = socket.AF_INET6 if ":" in address.hostname else socket.AF_INET
    sock = socket.create_server((address.hostname, address.port), family=family, backlog=BACKLOG)
    harden(sock)  # every accepted connection inherits it
    return sock


def _config(limits: Limits) -> Config:
    config = Config()
    config.errorlog = None  # what it would say of connections and requests is reported here; no access log
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.head_bytes
    config.max_app_queue_size = limits.queued_reads
    return config
