"""The voice agent of the bench: `python -m relay.bench.agent MODE [CERTIFICATE]`.

Knows as much of the Voice Agent protocol as a relay needs to be content.

MODE `echo` sends every 20 ms back as a frame of its own; `speech` answers nothing and talks half of the time,
in chunks of 300 bytes, as the real agent does; `interrupt` talks as well, is interrupted three times a
second, and sends a little more of the reply all the same.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import sys
import time

from relay.bench import frames
from relay.bench.loop import Connection, Loop, answer, read_head

CHUNK_NS = 37_500_000
TALK_CHUNKS = 53  # two seconds, and as long a pause
CUT_CHUNKS = 4  # of a reply until it is interrupted; as many moments follow it
BACKLOG = 512

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_GREETING_ID = b"resp_greeting"
_ECHO_ID = b"resp_echo"


class Session:
    """One call as the agent sees it."""

    def __init__(self, desk: Desk, sock: socket.socket) -> None:
        self.connection = Connection(sock, self._read)
        self._desk = desk
        self._is_ready = False
        self._next = -1  # the number that the callee's next frame should have
        self._chunk = 0
        self._number = 0

    def readable(self) -> None:
        """There is something to read."""
        self.connection.readable()
        if not self.connection.is_open:
            self._desk.loop.unwatch(self.connection.socket)

    def _send(self, *texts: bytes) -> None:
        for text in texts:
            self.connection.send(frames.server_frame(text))

    def _read(self, _: Connection, text: bytes) -> None:
        payload = frames.value_of(b'"audio"', text) if self._is_ready else None
        if payload is not None:
            self._heard(payload)
        elif b'"session.update"' in text and not self._is_ready:
            self._is_ready = True
            greeting = frames.reply_audio(_GREETING_ID, frames.GREETING)
            opening = (frames.reply_started(_GREETING_ID), greeting, frames.reply_done(_GREETING_ID))
            self._send(*frames.SESSION_READY, *opening)
            if self._desk.echoes:
                self._send(frames.reply_started(_ECHO_ID))
            elif self._desk.talks:
                phase = self._desk.sessions * 7_919_000 % (2 * TALK_CHUNKS * CHUNK_NS)
                self._desk.loop.at(time.monotonic_ns() + phase, self._talk)
            elif self._desk.is_cut:
                phase = self._desk.sessions * 7_919_000 % (2 * CUT_CHUNKS * CHUNK_NS)
                self._desk.loop.at(time.monotonic_ns() + phase, self._begin_and_be_cut)
        elif b'"session.end"' in text:
            self._send(frames.SESSION_ENDED)

    def _heard(self, payload: bytes) -> None:
        stamp = frames.read_stamp(payload)
        if stamp is not None:
            self._desk.frames += 1
            if self._next not in (-1, stamp[1]):
                self._desk.gaps += 1
            self._next = stamp[1] + 1
        if self._desk.echoes:
            self._send(frames.reply_audio(_ECHO_ID, payload))

    def _talk(self, due_ns: int) -> None:
        if not self.connection.is_open:
            return
        reply_id = b"resp_%d" % self._number
        if self._chunk == 0:
            self._send(frames.reply_started(reply_id))
        if self._chunk < TALK_CHUNKS:
            payload = frames.agent_payload(time.monotonic_ns(), self._number * TALK_CHUNKS + self._chunk)
            self._send(frames.reply_audio(reply_id, payload))
        elif self._chunk == TALK_CHUNKS:
            self._send(frames.reply_done(reply_id))
        self._chunk += 1
        if self._chunk == 2 * TALK_CHUNKS:
            self._chunk, self._number = 0, self._number + 1
        self._desk.loop.at(due_ns + CHUNK_NS, self._talk)

    def _begin_and_be_cut(self, due_ns: int) -> None:
        if not self.connection.is_open:
            return
        now, reply_id = time.monotonic_ns(), b"resp_%d" % (self._chunk // (2 * CUT_CHUNKS))
        step = self._chunk % (2 * CUT_CHUNKS)
        if step == 0:
            if not self._desk.cuts_on:
                self._desk.loop.at(due_ns + CHUNK_NS, self._begin_and_be_cut)
                return
            self._send(frames.reply_started(reply_id))
        if step < CUT_CHUNKS:
            self._send(frames.reply_audio(reply_id, frames.agent_payload(now, self._number)))
            self._number += 1
        if step == CUT_CHUNKS - 1:
            self._desk.cuts += 1
            self._send(frames.reply_done(reply_id, b"interrupted"))
        if step in (CUT_CHUNKS - 1, CUT_CHUNKS):
            self._send(frames.reply_audio(reply_id, frames.agent_payload(now, frames.LATE)))
        self._chunk += 1
        self._desk.loop.at(due_ns + CHUNK_NS, self._begin_and_be_cut)


class Desk:
    """Where relays call."""

    def __init__(self, mode: str, certificate: str | None) -> None:
        self.echoes, self.talks, self.is_cut = (mode == name for name in ("echo", "speech", "interrupt"))
        self.sessions = self.frames = self.gaps = self.cuts = 0
        self.cuts_on = True
        self.loop = Loop({"report": self._report, "hush": self._hush})
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._tls and certificate:
            self._tls.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)

    def run(self) -> None:
        """Serve until standard input ends."""
        self.loop.watch(self._listener, self._accept)
        answer(port=self._listener.getsockname()[1])
        self.loop.run()

    def _report(self) -> None:
        answer(sessions=self.sessions, frames=self.frames, gaps=self.gaps, cuts=self.cuts)

    def _hush(self) -> None:
        self.cuts_on = False
        self._report()

    def _accept(self) -> None:
        """Blocking, since it happens before anything is measured."""
        sock, _ = self._listener.accept()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
            lines = read_head(sock).split(b"\r\n")
            key = next(
                line.split(b":", 1)[1].strip()
                for line in lines
                if line.lower().startswith(b"sec-websocket-key:")
            )
            accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
        except (OSError, StopIteration):  # a caller that asks whether we are here
            sock.close()
            return
        self.sessions += 1
        session = Session(self, sock)
        self.loop.watch(sock, session.readable)


if __name__ == "__main__":
    Desk(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None).run()
