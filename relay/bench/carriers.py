"""The carriers of the bench, and its stopwatch: `python -m relay.bench.carriers RELAY_PORT admission|open`.

Knows what a person's telephone would send and hear, and reads the processes' own accounts of their time.

Every call sends 50 frames a second, evenly spread over time. What comes back says when it was sent, so the
way takes a known time without anything being remembered, and a number that is missing was lost.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from relay.bench import frames
from relay.bench.loop import Connection, Loop, answer
from relay.bench.placing import ACCOUNT_SID, Desk, Stream, Unplaced, connect
from relay.bench.rig import resident_bytes

FRAME_NS = 20_000_000
GOLDEN = 0.618033988749895  # spreads any number of calls evenly over 20 ms
PLACERS = 8  # threads that place calls which only come and go: each waits for the relay most of the time
CHURN_SECONDS = 900.0  # for one order's calls to come and go: 8,000 take three minutes on a core of their own
LIVE_SECONDS = 90.0  # for calls to come up; more than any relay has needed, also on a machine that is shared
STRAGGLERS_SECONDS = 0.5  # for the last frames of a measurement to come back
LOOK_NS = 20_000_000

_TICKS = os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """User and system time of a process so far; the kernel counts in 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Phone(Connection):
    """One call as the carrier sees it."""

    def __init__(self, stream: Stream, exchange: Exchange) -> None:
        super().__init__(stream.socket, self._heard)
        self.is_live = False  # audio has come back
        self._exchange = exchange
        self._key = os.urandom(4)
        self._sid = ("MZ" + os.urandom(16).hex()).encode()
        self._number = 0
        self._next = -1
        self._last_ns = 0  # when the last of the agent's audio was sent
        hello = frames.start(ACCOUNT_SID, stream.call_sid, self._sid.decode(), stream.parameters)
        for text in (frames.CONNECTED, hello):
            self.send(frames.client_frame(text, self._key))

    def hang_up(self) -> None:
        """The callee has."""
        self.send(frames.client_frame(frames.STOP % self._sid, self._key))
        self.is_open = False

    def pong(self, content: bytes) -> None:
        """Answer a ping, masked."""
        self.send(frames.client_frame(content, self._key, frames.PONG))

    def speak(self, due_ns: int) -> None:
        """Send 20 ms and come back for the next."""
        if not self.is_open:
            return
        now = time.monotonic_ns()
        payload = frames.callee_payload(now, self._number)
        self.send(frames.client_frame(frames.media(self._sid, self._number, payload), self._key))
        self._number += 1
        self._exchange.spoken(now - due_ns)
        self._exchange.loop.at(due_ns + FRAME_NS, self.speak)

    def _heard(self, _: Connection, text: bytes) -> None:
        payload = frames.value_of(b'"payload"', text)
        if payload is not None:
            stamp = frames.read_stamp(payload)
            if stamp is not None and stamp[1] == frames.LATE:
                self._exchange.late += 1
            elif stamp is not None:
                self.is_live = True
                self._last_ns = stamp[0]
                self._exchange.heard(stamp[0])
                if self._next not in (-1, stamp[1]):
                    self._exchange.gaps += abs(stamp[1] - self._next)
                self._next = stamp[1] + 1
        elif b'"clear"' in text:
            self._exchange.cleared(self._last_ns)
        elif b'"mark"' in text:
            name = frames.value_of(b'"name"', text)
            if name is not None:
                self.send(frames.client_frame(frames.mark(self._sid, name), self._key))


class Exchange:
    """All the phones, and what was counted."""

    def __init__(self, relay_port: int, *, admission: bool) -> None:
        self.loop = Loop(
            {"ramp": self._ramp, "measure": self._measure, "clears": self._clears, "churn": self._churn}
        )
        self.gaps = 0
        self.late = 0  # of a reply after its interruption
        self._clears_ns: list[int] = []  # one for each interruption of a run
        self._relay_port = relay_port
        self._desk = Desk() if admission else None
        self._phones: list[Phone] = []
        self._arrived: deque[Stream | Exception] = (
            deque()
        )  # from the placing thread; as long as a ramp at most
        self._wanted = 0
        self._over = 0  # calls that have come and gone
        self._recording = False
        self._ways_ns: list[int] = []  # of one measurement
        self._late_ns: list[int] = []
        self._sent = 0

    def run(self) -> None:
        """Serve until standard input ends."""
        answer(port=self._desk.port if self._desk else 0)
        self.loop.run()

    # ---- what the phones report ----------------------------------------------------------------------

    def spoken(self, late_ns: int) -> None:
        """A frame was sent, so much after its time."""
        if self._recording:
            self._sent += 1
            self._late_ns.append(late_ns)

    def heard(self, sent_ns: int) -> None:
        """A frame came back."""
        if self._recording:
            self._ways_ns.append(time.monotonic_ns() - sent_ns)

    def cleared(self, sent_ns: int) -> None:
        """The phone was silenced; the interruption was sent with the last audio that was heard."""
        self._clears_ns.append(time.monotonic_ns() - sent_ns)

    def _clears(self) -> None:
        answer(ways_us=[way // 1000 for way in self._clears_ns], late=self.late)

    # ---- bringing calls up ---------------------------------------------------------------------------

    def _ramp(self, calls: int) -> None:
        first, self._wanted = self._wanted + 1, calls
        self._start_placing(range(first, calls + 1))
        deadline = time.monotonic() + LIVE_SECONDS

        def look(due_ns: int) -> None:
            problem = self._connect_arrived(due_ns)
            live = sum(phone.is_live for phone in self._phones)
            if live >= calls or problem or time.monotonic() > deadline:
                answer(live=live, problem=problem)
            else:
                self.loop.at(due_ns + LOOK_NS, look)

        self.loop.at(time.monotonic_ns(), look)

    def _start_placing(self, numbers: range) -> None:
        threading.Thread(target=self._place, args=(numbers,), name="placing", daemon=True).start()

    def _place(self, numbers: range) -> None:
        for number in numbers:
            try:
                if self._desk:
                    self._arrived.append(self._desk.place(self._relay_port, number))
                else:
                    self._arrived.append(
                        Stream(connect("127.0.0.1", self._relay_port), f"CA{number:032x}", {})
                    )
            except (Unplaced, OSError, ValueError) as problem:
                self._arrived.append(problem)
                return

    def _churn(self, calls: int) -> None:
        """So many calls in all, one soon after the other; each is hung up when audio has come back."""
        first, self._wanted = self._wanted + 1, calls
        for each in range(PLACERS):
            self._start_placing(range(first + each, calls + 1, PLACERS))
        deadline = time.monotonic() + CHURN_SECONDS

        def look(due_ns: int) -> None:
            problem = self._connect_arrived(due_ns)
            for phone in [phone for phone in self._phones if phone.is_live]:
                phone.hang_up()
                self.loop.unwatch(phone.socket)
                self._phones.remove(phone)
                self._over += 1
            if self._over == calls or problem or time.monotonic() > deadline:
                answer(over=self._over, problem=problem)
            else:
                self.loop.at(due_ns + LOOK_NS, look)

        self.loop.at(time.monotonic_ns(), look)

    def _connect_arrived(self, now_ns: int) -> str:
        while self._arrived:
            stream = self._arrived.popleft()
            if isinstance(stream, Exception):
                return f"{type(stream).__name__}: {stream}"
            phone = Phone(stream, self)
            self._phones.append(phone)
            self.loop.watch(stream.socket, lambda phone=phone: self._readable(phone))  # type: ignore[misc]
            self.loop.at(now_ns + int(len(self._phones) * GOLDEN % 1 * FRAME_NS), phone.speak)
        return ""

    def _readable(self, phone: Phone) -> None:
        phone.readable()
        if not phone.is_open:
            self.loop.unwatch(phone.socket)

    # ---- measuring -----------------------------------------------------------------------------------

    def _measure(self, seconds: float, relay: int, agent: int) -> None:
        pids = {"relay": relay, "agent": agent, "carriers": os.getpid()}
        self._ways_ns, self._late_ns, self._sent = [], [], 0
        gaps = self.gaps
        before = {name: process_seconds(pid) for name, pid in pids.items()}
        began_ns = time.monotonic_ns()
        self._recording = True

        def finish(_: int) -> None:
            self._recording = False
            elapsed = (time.monotonic_ns() - began_ns) / 1e9
            spent = {name: process_seconds(pid) - before[name] for name, pid in pids.items()}
            self.loop.at(
                time.monotonic_ns() + int(STRAGGLERS_SECONDS * 1e9), lambda _: report(elapsed, spent)
            )

        def report(elapsed: float, spent: dict[str, float]) -> None:
            figures: dict[str, Any] = {
                "seconds": elapsed,
                "cpu_seconds": spent,
                "sent": self._sent,
                "lost": self.gaps - gaps,
                "hung_up": sum(not phone.is_open for phone in self._phones),
                "resident_bytes": resident_bytes(relay),
                "ways_us": [way // 1000 for way in self._ways_ns],
                "late_us": [late // 1000 for late in self._late_ns],
            }
            answer(**figures)

        self.loop.at(began_ns + int(seconds * 1e9), finish)


if __name__ == "__main__":
    Exchange(int(sys.argv[1]), admission=sys.argv[2] == "admission").run()
