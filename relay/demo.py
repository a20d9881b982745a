"""`relay demo`: one whole call on this machine alone, shown as it happens and judged at its end.

Knows how to show a rehearsal; the call itself takes the way that every call takes.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import orjson
import trio
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from relay.rehearsal import Performance, open_stage
from relay.simulator.ledger import Entry
from relay.simulator.listening import UNINTELLIGIBLE
from relay.simulator.scenario import Scenario
from relay.simulator.sound import BYTES_PER_SECOND, write_stereo_wav
from relay.simulator.speech import Voices
from relay.simulator.verdict import Check, Figures, Run, judge, measure, percentile
from relay.telemetry.logs import open_logs

TURN_SECONDS = 1.2  # of thinking and pausing around each thing said, for the length of the progress bar


class Show:
    """Tells a call on the terminal while it happens; plain lines where there is no terminal."""

    def __init__(self, console: Console, scenario: Scenario) -> None:
        self._console = console
        self._answered_at: float | None = None
        self._callee_ended_at: float | None = None
        self._progress = Progress(
            TextColumn("[dim]{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("dialling", total=_expected_seconds(scenario))

    def __enter__(self) -> Show:
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()

    def see(self, entry: Entry) -> None:
        """Show one event of either far end, if a person would care."""
        if self._answered_at is not None:
            self._progress.update(self._task, completed=entry.at - self._answered_at)
        tell = self._TOLD.get((entry.side, entry.direction, entry.event))
        if tell is not None:
            tell(self, entry)

    def _say(self, at: float, who: str, style: str, text: str, note: str = "") -> None:
        """One line; `note` is said in a lower voice."""
        clock = "       " if self._answered_at is None else f"{at - self._answered_at:6.2f}s"
        line = f"[dim]{clock}[/dim]  [{style}]{who:>8}[/{style}]  {escape(text)}[dim]{note}[/dim]"
        self._console.print(line, highlight=False, soft_wrap=True)

    def _status(self, entry: Entry) -> None:
        status = entry.fields["status"]
        if status == "in-progress":
            self._answered_at = entry.at
            self._progress.update(self._task, description="on the phone")
        self._say(entry.at, "carrier", "magenta", str(status))

    def _callee(self, entry: Entry) -> None:
        self._say(entry.at, "callee", "green", str(entry.fields["text"]))

    def _misheard(self, entry: Entry) -> None:
        if entry.fields["text"] == UNINTELLIGIBLE:
            self._say(entry.at, "", "red", "the agent takes noise for a turn of the callee's")

    def _callee_ended(self, entry: Entry) -> None:
        self._callee_ended_at = entry.fields.get("happened_at", entry.at)

    def _agent(self, entry: Entry) -> None:
        cut = " (interrupted)" if entry.fields.get("interrupted") else ""
        self._say(entry.at, "agent", "cyan", str(entry.fields["text"]), cut)

    def _audible(self, entry: Entry) -> None:
        if self._callee_ended_at is not None:
            waited = entry.fields.get("happened_at", entry.at) - self._callee_ended_at
            self._callee_ended_at = None
            self._say(entry.at, "", "dim", "", f"answer heard after {waited:.2f} s")

    def _tool(self, entry: Entry) -> None:
        self._say(entry.at, "tool", "yellow", f"{entry.fields['name']} {_compact(entry.fields['arguments'])}")

    def _tool_result(self, entry: Entry) -> None:
        self._say(entry.at, "tool", "yellow", f"→ {entry.fields.get('result', '')}")

    def _key(self, entry: Entry) -> None:
        self._say(entry.at, "callee", "green", f"presses {entry.fields['digit']}")

    def _beeped(self, entry: Entry) -> None:
        self._say(entry.at, "callee", "green", "(beep)")

    def _answered_by(self, entry: Entry) -> None:
        self._say(entry.at, "carrier", "magenta", f"answered by {entry.fields['who']}")

    def _barge_in(self, entry: Entry) -> None:
        seconds = entry.fields["bytes"] / BYTES_PER_SECOND
        self._say(
            entry.at, "barge-in", "bold red", f"the phone is silenced, {seconds:.2f} s of speech dropped"
        )

    _TOLD: ClassVar[dict[tuple[str, str, str], Callable[[Show, Entry], None]]] = {
        ("phone", "noted", "status"): _status,
        ("phone", "noted", "speech-started"): _callee,
        ("phone", "noted", "speech-ended"): _callee_ended,
        ("phone", "noted", "agent-audible"): _audible,
        ("phone", "noted", "cleared"): _barge_in,
        ("phone", "sent", "dtmf"): _key,
        ("phone", "noted", "beeped"): _beeped,
        ("phone", "noted", "answered-by"): _answered_by,
        ("agent", "sent", "transcript.agent"): _agent,
        ("agent", "sent", "transcript.user"): _misheard,
        ("agent", "sent", "tool.call"): _tool,
        ("agent", "received", "tool.result"): _tool_result,
    }


def run_demo(scenario: Scenario, data_dir: Path, *, as_json: bool = False) -> bool:
    """Play a scenario, show it, write its files; whether every check held."""
    folder = _new_folder(data_dir)
    console = Console(file=io.StringIO() if as_json else None)
    log = (folder / "relay.log").open("w")
    with log, open_logs("json", "info", log):
        where = "service, carrier and agent on this machine; no account needed"
        console.print(f"[bold]{escape(scenario.title)}[/bold]  ({where})", soft_wrap=True)
        performance = trio.run(_perform, scenario, folder, console)
    return _report(performance, folder, console, as_json=as_json)


async def _perform(scenario: Scenario, folder: Path, console: Console) -> Performance:
    settings: dict[str, Any] = {"RELAY_CAPTURE_DIR": str(folder / "capture"), **scenario.service}
    async with open_stage(folder, **settings) as stage:
        with Show(console, scenario) as show:
            return await stage.play(scenario, on_entry=show.see)


def _report(performance: Performance, folder: Path, console: Console, *, as_json: bool) -> bool:
    run = Run(performance.ledger, performance.scenario.expect)
    figures = measure(run)
    status = performance.call.status if performance.call else "never created"
    checks = judge(
        run,
        performance.record,
        performance.scenario,
        final_records=_final_records(folder),
        carrier_status=status,
    )
    _write_files(performance, folder)
    if as_json:
        sys.stdout.buffer.write(
            orjson.dumps(_as_json(performance, figures, checks, folder), option=orjson.OPT_INDENT_2)
        )
        sys.stdout.write("\n")
    else:
        console.print(_summary(performance, figures, folder))
        for check in checks:
            if not check.holds:
                broken = escape(f"{check.name}  {check.detail}")
                console.print(f"[bold red]failed:[/bold red] {broken}", highlight=False, soft_wrap=True)
        held = sum(check.holds for check in checks)
        console.print(f"{held} of {len(checks)} checks hold", style="green" if held == len(checks) else "red")
    return all(check.holds for check in checks)


def _summary(performance: Performance, figures: Figures, folder: Path) -> Table:
    record = performance.record
    ending = record.get("ending") or {
        "blame": "-",
        "reason": performance.answer.get("error", {}).get("code", "-"),
    }
    silenced = ", ".join(f"{seconds * 1000:.1f} ms" for seconds in figures.silenced_seconds)
    first = figures.answer_to_first_audio_seconds
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("ending", f"{ending['reason']} (blame: {ending['blame']})"),
        ("duration", f"{record.get('duration_seconds', 0):.1f} s"),
        ("answer to first audio", "-" if first is None else f"{first:.2f} s"),
        ("frames relayed", f"{figures.frames_to_agent} to the agent, {figures.frames_to_phone} to the phone"),
        (
            "barge-ins",
            f"{len(figures.silenced_seconds)}" + (f", phone silenced after {silenced}" if silenced else ""),
        ),
        (
            "latency, the agent's share",
            _spread([turn.agent_seconds for turn in figures.turns], lambda seconds: f"{seconds:.2f} s"),
        ),
        (
            "latency, ours",
            _spread([turn.relay_seconds for turn in figures.turns], lambda s: f"{s * 1000:.1f} ms"),
        ),
        (
            "files",
            f"{folder}/ ({', '.join(sorted(path.name for path in folder.iterdir() if path.is_file()))})",
        ),
    ):
        table.add_row(f"[bold]{name}[/bold]", value)
    return table


def _spread(seconds: list[float], said: Callable[[float], str]) -> str:
    if not seconds:
        return "-"
    return f"p50 {said(percentile(seconds, 0.5))}, p95 {said(percentile(seconds, 0.95))}"


def _write_files(performance: Performance, folder: Path) -> None:
    record = dict(performance.record)
    (folder / "call.json").write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    transcript = orjson.dumps(record.get("transcript", []), option=orjson.OPT_INDENT_2)
    (folder / "transcript.json").write_bytes(transcript)
    entries = performance.ledger.entries
    with (folder / "events.jsonl").open("wb") as events:
        for entry in entries:
            line = _elided(entry, began=entries[0].at)
            events.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE, default=str))
    if performance.call and (phones := performance.call.phones):  # one for each stream
        said, heard = b"".join(each.said for each in phones), b"".join(each.heard for each in phones)
        write_stereo_wav(folder / "call.wav", said, heard)


def _elided(entry: Entry, *, began: float) -> dict[str, Any]:
    line: dict[str, Any] = {
        "at": round(entry.at - began, 4),
        "side": entry.side,
        "direction": entry.direction,
    }
    line |= {"event": entry.event, **{name: value for name, value in entry.fields.items() if name != "body"}}
    if entry.payload is not None:
        line["payload"] = f"<{len(entry.payload)} characters>"
    return line


def _as_json(performance: Performance, figures: Figures, checks: list[Check], folder: Path) -> dict[str, Any]:
    return {
        "ending": performance.record.get("ending"),
        "duration_seconds": performance.record.get("duration_seconds"),
        "answer_to_first_audio_seconds": figures.answer_to_first_audio_seconds,
        "frames_to_agent": figures.frames_to_agent,
        "frames_to_phone": figures.frames_to_phone,
        "silenced_seconds": figures.silenced_seconds,
        "turns": [
            {"agent_seconds": turn.agent_seconds, "relay_seconds": turn.relay_seconds}
            for turn in figures.turns
        ],
        "checks": {check.name: check.holds for check in checks},
        "files": str(folder),
    }


def _final_records(folder: Path) -> int:
    lines = (folder / "relay.log").read_bytes().splitlines()
    return sum(orjson.loads(line).get("event") == "call ended" for line in lines if line.startswith(b"{"))


def _new_folder(data_dir: Path) -> Path:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        folder = data_dir / f"demo-{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"no free name for a folder under {data_dir}")


def _expected_seconds(scenario: Scenario) -> float:
    voices = Voices()
    said = [text for text in scenario.texts() if text[1] != scenario.agent.otherwise]
    spoken = [len(voices.say(voice, text)) / BYTES_PER_SECOND for voice, text in said]
    return sum(spoken) + TURN_SECONDS * len(spoken)


def _compact(value: object) -> str:
    return orjson.dumps(value).decode()
