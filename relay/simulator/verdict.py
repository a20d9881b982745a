"""Judges a run by what both far ends wrote down: was the call as it had to be, what took how long.

Knows the ledger and the telephone's tracks; knows nothing of the service but the record that it published.
"""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from relay.simulator.ledger import Entry, Ledger
from relay.simulator.scenario import Expected, Scenario
from relay.simulator.sound import BYTES_PER_SECOND, SILENCE

TELLING_SECONDS = 0.15  # by which what is known from afar may be wrong, for each clear

_HEARD_OUT = ("goodbye", "message-left")  # the endings that wait until the last word was heard

_NOTHING_SPECIAL = Expected()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold."""

    name: str
    holds: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer of the agent's: from the end of the callee's speech to the first sound at the telephone."""

    total_seconds: float
    agent_seconds: float  # between the agent's hearing the end of it and its sending the first sound
    relay_seconds: float  # what the way through the service added, both ways


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured at the far ends."""

    answer_to_first_audio_seconds: float | None
    frames_to_agent: int
    frames_to_phone: int
    silenced_seconds: tuple[float, ...]  # for each barge-in: from the agent's word to the phone's silence
    turns: tuple[Turn, ...]
    uplink_seconds: tuple[float, ...]  # of each frame
    downlink_seconds: tuple[float, ...]


class Run:
    """Both accounts of one call, laid side by side; what is expected says what may go unheard."""

    def __init__(self, ledger: Ledger, expected: Expected = _NOTHING_SPECIAL) -> None:
        self.ledger = ledger
        self.said = ledger.select("phone", "sent", "media")
        self.forwarded = ledger.select("agent", "received", "input.audio")
        received = ledger.select("phone", "received", "media")
        self.withheld = self._unheard({entry.payload for entry in received})[: expected.withheld]
        self.spoken = [e for e in ledger.select("agent", "sent", "reply.audio") if not self._is_withheld(e)]
        spoken_payloads = {entry.payload for entry in self.spoken}
        self.own = [e for e in received if e.payload not in spoken_payloads and _is_silence(e)]
        own = {id(entry) for entry in self.own}
        self.played = [entry for entry in received if id(entry) not in own]
        done = {
            str(entry.fields.get("reply_id")): entry for entry in ledger.select("agent", "sent", "reply.done")
        }
        last_sent = {str(entry.fields.get("reply_id")): entry.at for entry in self.spoken}
        cut = {
            reply_id: entry.at
            for reply_id, entry in done.items()
            if entry.fields.get("status") in ("interrupted", "cancelled") and not self._is_withheld(entry)
        }
        # A reply without an end went with its session, which we have given up, or which was lost.
        self.broken_off = {reply_id: at for reply_id, at in last_sent.items() if reply_id not in done}
        self.cut_by_us = set(self.broken_off) | {
            reply_id for reply_id in cut if done[reply_id].fields.get("status") == "cancelled"
        }
        self.interrupted = cut | self.broken_off
        self.cleared_at = {reply_id: self._cleared(reply_id, at) for reply_id, at in self.interrupted.items()}
        self.uplink = self._match_uplink()
        self.downlink, self.skipped, self.strange = self._match_downlink()
        self.last_words: list[Entry] = []  # of the service's own, behind all that the agent said
        if expected.last_words:
            agent_until = self.downlink[-1][1].at if self.downlink else 0.0
            self.last_words = [entry for entry in self.strange if entry.at > agent_until]
            self.strange = [entry for entry in self.strange if entry.at <= agent_until]

    def _unheard(self, received: set[str | None]) -> list[str]:
        """The replies that did not complete and of which nothing audible was played, in order."""
        audible: dict[str, bool] = {}
        for entry in self.ledger.select("agent", "sent", "reply.audio"):
            reply_id = str(entry.fields.get("reply_id"))
            is_heard = entry.payload in received and not _is_silence(entry)
            audible[reply_id] = audible.get(reply_id, False) or is_heard
        for entry in self.ledger.select("agent", "sent", "reply.done"):
            if entry.fields.get("status") == "completed":
                audible[str(entry.fields.get("reply_id"))] = True
        return [reply_id for reply_id, is_heard in audible.items() if not is_heard]

    def _is_withheld(self, entry: Entry) -> bool:
        return str(entry.fields.get("reply_id")) in self.withheld

    def sessions(self) -> list[tuple[Entry, list[Entry]]]:
        """Each session with the frames that were forwarded in it."""
        opened = [
            e
            for e in self.ledger.entries
            if (e.side, e.direction) == ("agent", "received")
            and e.event in ("session.update", "session.resume")
        ]
        ends = [entry.at for entry in opened[1:]] + [math.inf] * bool(opened)
        return [
            (entry, [frame for frame in self.forwarded if entry.at <= frame.at < end])
            for entry, end in zip(opened, ends, strict=True)
        ]

    def _match_uplink(self) -> list[tuple[Entry, Entry]] | None:
        """Each forwarded frame with the one said; None unless those of each session are one unbroken run."""
        pairs: list[tuple[Entry, Entry]] = []
        said, end = [entry.payload for entry in self.said], len(self.said)
        for _, forwarded in reversed(self.sessions()):
            wanted = [entry.payload for entry in forwarded]
            candidates = range(end - len(wanted), -1, -1)  # the last run that fits: silences are alike
            start = next((k for k in candidates if said[k : k + len(wanted)] == wanted), None)
            if start is None:
                return None
            pairs[:0] = zip(self.said[start:end], forwarded, strict=False)
            end = start
        return pairs

    def _cleared(self, reply_id: str, cut_at: float) -> float | None:
        """When the phone was silenced for its sake: behind the agent's word, or before it where we cut it."""
        begun = (e.at for e in self.spoken if str(e.fields.get("reply_id")) == reply_id)
        since = next(begun, cut_at) if reply_id in self.cut_by_us else cut_at
        return next((e.at for e in self.ledger.select("phone", "received", "clear") if e.at >= since), None)

    def _is_same(self, spoken: Entry, heard: Entry) -> bool:
        """Whether the one may be the other. Silences are alike: behind a clear they are of a later reply."""
        if spoken.payload != heard.payload:
            return False
        cleared_at = self.cleared_at.get(str(spoken.fields.get("reply_id")))
        return cleared_at is None or heard.at <= cleared_at or not _is_silence(heard)

    def _match_downlink(self) -> tuple[list[tuple[Entry, Entry]], list[Entry], list[Entry]]:
        """(spoken, played) in order; what was spoken and not played; what was played, never spoken."""
        pairs, skipped, strange = [], [], []
        position = 0
        for heard in self.played:
            ahead = position
            while ahead < len(self.spoken) and not self._is_same(self.spoken[ahead], heard):
                ahead += 1
            if ahead == len(self.spoken):
                strange.append(heard)
                continue
            skipped += self.spoken[position:ahead]
            pairs.append((self.spoken[ahead], heard))
            position = ahead + 1
        return pairs, skipped + self.spoken[position:], strange


def judge(
    run: Run,
    record: Mapping[str, Any],
    scenario: Scenario,
    *,
    final_records: int,
    carrier_status: str,
) -> list[Check]:
    """What has to hold for every call, for one that was talked through, and for the one of this scenario."""
    expected, ledger = scenario.expect, run.ledger
    ending = record.get("ending") or {}
    outcome = scenario.carrier.outcome
    wanted = "completed" if outcome == "answered" else outcome
    checks = [
        Check("no violation of either protocol", not ledger.violations, "; ".join(ledger.violations[:3])),
        Check("one final record", final_records == 1, f"{final_records} lines 'call ended'"),
        Check(
            f"ended by {expected.ending[1]}",
            (ending.get("blame"), ending.get("reason")) == expected.ending,
            str(ending),
        ),
        Check(f"the carrier confirms {wanted}", carrier_status == wanted, carrier_status),
    ]
    return [
        *checks,
        *_as_expected(run, record, expected),
        *(_talk(run, record, expected) if run.said else []),
    ]


def _as_expected(run: Run, record: Mapping[str, Any], expected: Expected) -> list[Check]:
    """What this scenario is there to show."""
    told = run.ledger.select("agent", "sent", "transcript.agent")
    spoken = [str(entry.fields["text"]) for entry in told if not entry.fields.get("interrupted")]
    noted = [str(event["event"]) for event in record.get("events", ())]
    checks = [Check(f"said: {words}", any(words in text for text in spoken)) for words in expected.said]
    checks += [Check(f"noted: {event}", event in noted) for event in expected.noted]
    called = run.ledger.select("agent", "sent", "tool.call")
    calls = {entry.fields["call_id"]: entry.fields["name"] for entry in called}
    results = run.ledger.select("agent", "received", "tool.result")
    refused = [calls.get(entry.fields["call_id"]) for entry in results if entry.fields.get("is_error")]
    return [*checks, *(Check(f"refused: {name}", name in refused) for name in expected.refused)]


def _talk(run: Run, record: Mapping[str, Any], expected: Expected) -> list[Check]:
    ledger = run.ledger
    first_said = _first(ledger.select("phone", "noted", "speech-started"))
    first_audible = _first(ledger.select("phone", "noted", "agent-audible"))
    lost = [entry for entry in run.skipped if str(entry.fields.get("reply_id")) not in run.interrupted]
    if expected.ending[1] not in _HEARD_OUT:  # the telephone is gone: what was still being said is lost
        played_until = run.downlink[-1][0].at if run.downlink else 0.0
        lost = [entry for entry in lost if entry.at < played_until]
    checks = [
        Check(
            "callee's audio byte-exact at the agent",
            run.uplink is not None and (len(run.forwarded) > 0 or not expected.heard),
            f"{len(run.forwarded)} frames",
        ),
        Check(
            "agent's audio byte-exact at the phone",
            not run.strange and not lost and len(run.downlink) > 0,
            f"{len(run.downlink)} frames, {len(lost)} lost, {len(run.strange)} strange",
        ),
        Check("nothing forwarded before the opening was heard", _is_gated(run)),
        Check("no audio of an interrupted reply after the clear", _is_quiet_after_clear(run)),
        Check("the record tells what was heard", *_is_told(run, record)),
        Check(
            "both sockets closed",
            bool(ledger.select("phone", "noted", "stream-closed"))
            and bool(ledger.select("agent", "noted", "closed")),
        ),
    ]
    if expected.first == "agent":
        spoke_first = first_audible is not None and (first_said is None or first_audible < first_said)
        checks.append(Check("the agent spoke first", spoke_first))
    if expected.last_words:
        checks.append(Check("the last words were heard to their end", _heard_last_words(run)))
    if expected.ending[1] in _HEARD_OUT:
        checks.append(Check("the goodbye was heard to its end", _heard_goodbye(run)))
    beeps = [_happened(entry) for entry in ledger.select("phone", "noted", "beeped")]
    if beeps and expected.ending[1] == "message-left":
        checks.append(Check("the message began behind the beep", _last_reply_began(run) >= beeps[-1]))
    return checks


def measure(run: Run) -> Figures:
    """How long things took, seen from outside."""
    ledger = run.ledger
    answered = next(
        (e.at for e in ledger.select("phone", "noted", "status") if e.fields.get("status") == "in-progress"),
        None,
    )
    audible = [_happened(entry) for entry in ledger.select("phone", "noted", "agent-audible")]
    uplink = tuple(heard.at - said.at for said, heard in run.uplink or ())
    downlink = tuple(heard.at - spoken.at for spoken, heard in run.downlink)
    return Figures(
        answer_to_first_audio_seconds=audible[0] - answered if audible and answered is not None else None,
        frames_to_agent=len(run.forwarded),
        frames_to_phone=len(run.played),
        silenced_seconds=tuple(_silenced(run)),
        turns=tuple(_turns(run, audible, uplink, downlink)),
        uplink_seconds=uplink,
        downlink_seconds=downlink,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def _turns(run: Run, audible: list[float], uplink: Sequence[float], downlink: Sequence[float]) -> list[Turn]:
    turns = []
    relay_seconds = (median(uplink) if uplink else 0.0) + (median(downlink) if downlink else 0.0)
    for ended in (_happened(entry) for entry in run.ledger.select("phone", "noted", "speech-ended")):
        answer = next((at for at in audible if at > ended), None)
        if answer is not None:
            turns.append(Turn(answer - ended, answer - ended - relay_seconds, relay_seconds))
    return turns


def _silenced(run: Run) -> list[float]:
    clears = [entry.at for entry in run.ledger.select("phone", "received", "clear")]
    times = [next((at - cut for at in clears if at >= cut), None) for cut in run.interrupted.values()]
    return [seconds for seconds in times if seconds is not None]


def _is_quiet_after_clear(run: Run) -> bool:
    """Whether each reply that was cut was cleared too, where the line was up, and nothing of it came late."""
    late = any(
        heard.at > cleared_at
        for spoken, heard in run.downlink
        if (cleared_at := run.cleared_at.get(str(spoken.fields.get("reply_id")))) is not None
    )
    uncleared = {reply_id for reply_id, at in run.cleared_at.items() if at is None}
    return not late and uncleared <= run.broken_off.keys()


def _heard_goodbye(run: Run) -> bool:
    """The last mark was echoed after all of the last reply was played, and nothing cleared it."""
    marks = run.ledger.select("phone", "received", "mark")
    echoes = {entry.fields["name"]: entry.at for entry in run.ledger.select("phone", "sent", "mark")}
    if not marks or not run.downlink:
        return False
    last_mark, last_sound = marks[-1], run.downlink[-1][1]
    begun = _last_reply_began(run)
    cleared = any(entry.at >= begun for entry in run.ledger.select("phone", "received", "clear"))
    return last_mark.at >= last_sound.at and last_mark.fields["name"] in echoes and not cleared


def _heard_last_words(run: Run) -> bool:
    """Something was said by the service itself, and the mark behind it came back."""
    marks = run.ledger.select("phone", "received", "mark")
    echoes = {entry.fields["name"] for entry in run.ledger.select("phone", "sent", "mark")}
    return bool(
        run.last_words
        and marks
        and marks[-1].at >= run.last_words[-1].at
        and marks[-1].fields["name"] in echoes
    )


def _is_told(run: Run, record: Mapping[str, Any]) -> tuple[bool, str]:
    """What the record says was heard and cleared of the replies, beside what the telephone did with them."""
    cleared = [entry.fields["bytes"] for entry in run.ledger.select("phone", "noted", "cleared")]
    sent = sum(len(b64decode(heard.payload or "")) for _, heard in run.downlink)
    wanted = (sent - sum(cleared)) / BYTES_PER_SECOND, sum(cleared) / BYTES_PER_SECOND
    replies = record.get("replies") or []
    told = tuple(sum(reply[name] for reply in replies) for name in ("heard_seconds", "cleared_seconds"))
    slack = TELLING_SECONDS * (1 + len(cleared))
    is_told = all(abs(one - other) <= slack for one, other in zip(told, wanted, strict=True))
    return is_told, f"{told[0]:.2f} of {wanted[0]:.2f} s heard, {told[1]:.2f} of {wanted[1]:.2f} s cleared"


def _last_reply_began(run: Run) -> float:
    if not run.downlink:
        return math.inf
    last = run.downlink[-1][0].fields.get("reply_id")
    return next(heard.at for spoken, heard in run.downlink if spoken.fields.get("reply_id") == last)


def _is_gated(run: Run) -> bool:
    """Whether no session heard anything before what it was opened with had been heard, where it greets."""
    echoes = [entry.at for entry in run.ledger.select("phone", "sent", "mark")]
    for opened, forwarded in run.sessions():
        session = opened.fields.get("session") or {}
        heard_at = next((at for at in echoes if at >= opened.at), math.inf)
        if forwarded and "greeting" in session and forwarded[0].at < heard_at:
            return False
    return True


def _is_silence(entry: Entry) -> bool:
    return set(b64decode(entry.payload or "")) <= {SILENCE}


def _happened(entry: Entry) -> float:
    return float(entry.fields.get("happened_at", entry.at))


def _first(entries: Sequence[Entry]) -> float | None:
    return _happened(entries[0]) if entries else None
