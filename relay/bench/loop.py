"""The loop of a far end: sockets, moments, and orders from the rig, in one thread and little else.

Knows neither vendor. Written for steady pace and a small share of its core, not for beauty of behaviour.

Orders come as JSON lines on standard input, and each is answered by one JSON line on standard output.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import json
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from relay.bench import frames

READ_BYTES = 65536
UPGRADE_SECONDS = 10.0
IDLE_SECONDS = 0.05  # between two looks at what other threads have brought, when nothing is due

Moment: TypeAlias = Callable[[int], None]
Orders: TypeAlias = dict[str, Callable[..., None]]


class Connection:
    """A WebSocket after its handshake. What the relay does not take at once waits here, never in the loop."""

    def __init__(self, sock: socket.socket, read: Callable[[Connection, bytes], None]) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.is_open = True
        self._read = read
        self._reader = frames.FrameReader()
        self._backlog = b""  # grows only while the relay does not read; such a run has failed anyway

    def send(self, frame: bytes) -> None:
        """Send now, or in front of what is sent next."""
        if self._backlog:
            frame = self._backlog + frame
        try:
            sent = self.socket.send(frame)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError:
            self.is_open = False
            return
        self._backlog = frame[sent:] if sent < len(frame) else b""

    def readable(self) -> None:
        """Read what is there and hand on the texts; pings are answered."""
        while True:
            try:
                piece = self.socket.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                piece = b""
            if not piece:
                self.is_open = False
                return
            for opcode, content in self._reader.feed(piece):
                if opcode == frames.TEXT:
                    self._read(self, content)
                elif opcode == frames.PING:
                    self.pong(content)
                elif opcode == frames.CLOSE:
                    self.is_open = False
            if not isinstance(self.socket, ssl.SSLSocket):  # level-triggered: the rest wakes us again
                return

    def pong(self, content: bytes) -> None:
        """Answer a ping; the sides mask differently."""
        self.send(frames.server_frame(content, frames.PONG))


class Loop:
    """Runs until standard input ends."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._due: list[tuple[int, int, Moment]] = []  # one for each call and a few more
        self._serial = itertools.count()
        self._running = True

    def watch(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        """Call back whenever there is something to read or accept."""
        self._ready[sock.fileno()] = readable
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def unwatch(self, sock: socket.socket) -> None:
        """Close a socket."""
        self._ready.pop(sock.fileno(), None)
        sock.close()

    def at(self, moment_ns: int, moment: Moment) -> None:
        """Call back once, with the moment asked for."""
        heapq.heappush(self._due, (moment_ns, next(self._serial), moment))

    def run(self) -> None:
        """Turn; the collector stands still, since there is nothing cyclic to collect."""
        gc.disable()
        self._ready[0] = self._obey
        self._epoll.register(0, select.EPOLLIN)
        due = self._due
        while self._running:
            while due and due[0][0] <= time.monotonic_ns():
                moment_ns, _, moment = heapq.heappop(due)
                moment(moment_ns)
            wait = min((due[0][0] - time.monotonic_ns()) / 1e9, IDLE_SECONDS) if due else IDLE_SECONDS
            # epoll counts in milliseconds, which would bunch the frames; select around it in microseconds.
            if select.select((self._epoll,), (), (), max(wait, 0.0))[0]:
                for descriptor, _ in self._epoll.poll(0):
                    ready = self._ready.get(descriptor)
                    if ready is not None:
                        ready()

    def _obey(self) -> None:
        lines = os.read(0, READ_BYTES)
        self._running = bool(lines)
        for line in lines.splitlines():
            order: dict[str, Any] = json.loads(line)
            self._orders[order.pop("do")](**order)


def answer(**figures: Any) -> None:
    """Tell the rig."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def read_head(sock: socket.socket) -> bytes:
    """An HTTP head, blocking; nobody sends more before the upgrade is answered, except behind an answer."""
    sock.settimeout(UPGRADE_SECONDS)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(READ_BYTES)
        if not piece:
            raise ConnectionError("closed during the upgrade")
        head += piece
    return head
