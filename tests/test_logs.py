"""Log lines: their form, what they never tell, and that nobody who reads them can stop a call."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from relay.telemetry import logs
from relay.telemetry.logs import QUEUE_LINES, LibraryLines, open_logs, read_levels
from relay.telemetry.redaction import HIDDEN_KEYS, NUMBER_KEYS, REDACTED, Redactor


@contextmanager
def open_pipe() -> Iterator[tuple[int, TextIOWrapper]]:
    """A real pipe: the descriptor to read from, and the stream to log to."""
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "w") as stream:
            yield reader, stream
    finally:
        os.close(reader)


def lines_of(write: Callable[[], object], tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    """What `write` logs, as a reader of JSON lines finds it."""
    with (tmp_path / "log").open("w+") as stream:
        with open_logs("json", options.pop("level", "info"), stream, **options):
            write()
        stream.seek(0)
        return [json.loads(line) for line in stream]


def test_a_line_carries_when_how_grave_what_and_whose(tmp_path: Path) -> None:
    def write() -> None:
        with structlog.contextvars.bound_contextvars(call_id="call_1", call_sid="CA1", stream_sid="MZ1"):
            structlog.get_logger().info("call ended", blame="nobody", duration_seconds=3.5)

    (line,) = lines_of(write, tmp_path)
    when = line.pop("timestamp")
    assert when.endswith("Z")
    assert datetime.fromisoformat(when).tzinfo is not None
    assert list(line)[:2] == ["level", "event"]
    assert line == {
        "level": "info", "event": "call ended", "subsystem": "service", "call_id": "call_1",
        "call_sid": "CA1", "stream_sid": "MZ1", "blame": "nobody", "duration_seconds": 3.5,
    }  # fmt: skip


def test_a_logger_made_before_the_logs_were_opened_writes_into_them(tmp_path: Path) -> None:
    early = structlog.get_logger()
    (line,) = lines_of(lambda: early.warning("disk is full"), tmp_path)
    assert line["event"] == "disk is full"


def test_lines_below_the_level_are_not_written(tmp_path: Path) -> None:
    def write() -> None:
        structlog.get_logger().info("unimportant")
        structlog.get_logger().error("important")

    assert [line["event"] for line in lines_of(write, tmp_path, level="error")] == ["important"]


def test_an_exception_is_a_traceback_without_local_variables(tmp_path: Path) -> None:
    def write() -> None:
        heard = "-".join(["said", "in", "confidence"])
        try:
            raise RuntimeError(f"call to +12025550143 failed after {len(heard)} letters")
        except RuntimeError:
            structlog.get_logger().exception("call crashed")

    (line,) = lines_of(write, tmp_path)
    assert "RuntimeError: call to *43 failed after 18 letters" in line["exception"]
    assert "said-in-confidence" not in line["exception"]


def test_libraries_are_heard_from_warnings_upward(tmp_path: Path) -> None:
    def write() -> None:
        library = logging.getLogger("some.library")
        library.info("chatter")
        library.warning("retrying %s", "+12025550143")
        library.error("gave up")

    first, second = lines_of(write, tmp_path)
    assert (first["level"], first["event"], first["logger"]) == ("warning", "library log", "some.library")
    assert first["message"] == "retrying *43"
    assert (second["level"], second["message"]) == ("error", "gave up")


def test_a_library_whose_message_cannot_be_formatted_is_heard_all_the_same(tmp_path: Path) -> None:
    record = logging.makeLogRecord({"levelno": logging.WARNING, "msg": "%d of %d", "args": ("one",)})
    (line,) = lines_of(lambda: LibraryLines().emit(record), tmp_path)
    assert line["message"] == "%d of %d"


def test_after_the_end_everything_is_as_before(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    lines_of(lambda: None, tmp_path)
    assert (root.level, list(root.handlers)) == before
    assert not structlog.is_configured()


def test_for_people_the_same_line_is_text(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as stream:
        with open_logs("console", "info", stream):
            structlog.get_logger().info("call started", to="+12025550143", transcript="hello", at="\ud800")
        stream.seek(0)
        text = stream.read()
    assert "call started" in text
    assert "*43" in text
    assert "hello" not in text


def test_without_a_terminal_lines_are_json(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as stream:
        with open_logs(None, "info", stream):
            structlog.get_logger().info("call started")
        stream.seek(0)
        assert json.loads(stream.read())["event"] == "call started"


@pytest.mark.parametrize(
    "value", ["\ud800", 2**70, float("nan"), {1: {2}}, b"\xff", object(), Path("/x"), ("a", None)]
)
def test_no_content_can_lose_a_line(value: object, tmp_path: Path) -> None:
    (line,) = lines_of(lambda: structlog.get_logger().info("odd", value=value), tmp_path)
    assert line["event"] == "odd"


@pytest.mark.parametrize("key", sorted(HIDDEN_KEYS))
def test_speech_and_secrets_are_hidden_by_their_key_at_any_depth(key: str) -> None:
    hidden = Redactor().mapping({key: "Sw0rdfish", "deep": [{key.upper(): {"more": "Sw0rdfish"}}]})
    assert "Sw0rdfish" not in str(hidden)
    assert hidden[key] == REDACTED


@pytest.mark.parametrize("key", sorted(NUMBER_KEYS))
def test_numbers_keep_their_last_two_digits_alone(key: str) -> None:
    assert Redactor().mapping({key: "+12025550143"}) == {key: "*43"}
    assert Redactor().mapping({key: None}) == {key: None}


@given(st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True), st.text(st.characters(categories=["L"])))
def test_a_number_in_a_sentence_or_a_url_is_masked_too(number: str, around: str) -> None:
    written = Redactor().mapping(
        {"message": f"{around}+{number}{around}", "url": f"/calls?To=%2B{number}&x=y"}
    )
    assert number not in str(written)


LETTERS, DIGITS = st.text("abc*.\\[", min_size=1), st.text("012 ")


@given(st.lists(LETTERS), DIGITS, DIGITS)
def test_no_secret_is_written_wherever_it_stands(secrets: list[str], before: str, after: str) -> None:
    said = {"event": [f"{before}{secret}{after}" for secret in secrets]}
    assert Redactor(secrets).mapping(said) == {"event": [f"{before}{REDACTED}{after}" for _ in secrets]}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_of_whoever_asks_is_not_written_though_nobody_here_knows_it(scheme: str) -> None:
    said = {"event": f"sent Authorization: '{scheme} Sw0rdfish', refused"}
    assert Redactor().mapping(said) == {"event": f"sent Authorization: '{scheme} {REDACTED}', refused"}


def test_identifiers_and_figures_are_told_as_they_are() -> None:
    told = {
        "call_id": "call_1",
        "call_sid": "CA" + "1" * 32,
        "duration_seconds": 1.5,
        "frames": 7,
        "answered": True,
    }
    assert Redactor().mapping(told) == told


def test_a_reader_who_does_not_read_stops_nobody_and_is_told_how_much_was_lost() -> None:
    lines = QUEUE_LINES + 5_000  # far more than the pipe and the queue hold together
    with open_pipe() as (reader, stream), open_logs("json", "info", stream):
        for _ in range(lines):
            structlog.get_logger().info("filling")
        text = b""
        while text.count(b'"filling"') < QUEUE_LINES:  # the reader awakes, and there is room again
            text += os.read(reader, 65536)
        structlog.get_logger().info("afterwards")
        while b'"afterwards"' not in text:
            text += os.read(reader, 65536)
    told = [
        line["count"] for line in map(json.loads, text.splitlines()) if line["event"] == "log lines dropped"
    ]
    assert told
    assert text.count(b'"filling"') + sum(told) == lines


def test_the_end_waits_for_a_silent_reader_no_longer_than_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.2)
    with open_pipe() as (_reader, stream):
        with open_logs("json", "info", stream):
            for nth in range(2_000):
                structlog.get_logger().info("filling", nth=nth)
            began = time.monotonic()
        assert time.monotonic() - began < 5


def test_a_reader_who_has_gone_away_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, open_logs("json", "info", stream):
        for _ in range(10):
            structlog.get_logger().info("to nobody")


def test_a_stdout_that_somebody_made_non_blocking_loses_no_line() -> None:
    with open_pipe() as (reader, stream):
        os.set_blocking(stream.fileno(), False)
        with open_logs("json", "info", stream):
            for nth in range(2_000):  # more than a pipe holds
                structlog.get_logger().info("filling", nth=nth)
            text = b""
            while b'"nth":1999' not in text:
                text += os.read(reader, 65536)
    assert [json.loads(line)["nth"] for line in text.splitlines()] == list(range(2_000))


PROGRAM = """
import sys, structlog
from relay.telemetry.logs import open_logs
print("first")
with open_logs("json", "info", sys.stdout):
    for nth in range(int(sys.argv[1])):
        structlog.get_logger().info("filling", nth=nth)
print("last")
"""


def test_everything_logged_is_written_before_the_program_ends_and_in_its_place() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM, "3000"], capture_output=True, check=True)
    first, *lines, last = run.stdout.splitlines()
    assert (first, last) == (b"first", b"last")
    assert [json.loads(line)["nth"] for line in lines] == list(range(3000))


# ---- subsystems --------------------------------------------------------------------------------------------


def speak() -> None:
    for subsystem in ("calls", "web"):
        logger = structlog.get_logger(subsystem=subsystem)
        logger.debug("in detail")
        logger.info("as usual")
    structlog.get_logger().warning("of nobody's")


@pytest.mark.parametrize(
    ("levels", "heard"),
    [
        ("info", {"calls as usual", "web as usual", "service of nobody's"}),
        ("info,web=debug", {"calls as usual", "web in detail", "web as usual", "service of nobody's"}),
        ("warning, calls=info", {"calls as usual", "service of nobody's"}),
        ("debug,web=error,service=error", {"calls in detail", "calls as usual"}),
    ],
)
def test_each_subsystem_has_its_level(levels: str, heard: set[str], tmp_path: Path) -> None:
    lines = lines_of(speak, tmp_path, level=levels)
    assert {f"{line['subsystem']} {line['event']}" for line in lines} == heard


@pytest.mark.parametrize(
    "levels", ["", "loud", "info,web", "info,web=loud", "info,kitchen=debug", "web=debug"]
)
def test_levels_that_nobody_knows_are_refused_with_those_there_are(levels: str) -> None:
    with pytest.raises(ValueError, match="calls, web, store, tools, service, libraries"):
        read_levels(levels)


def test_libraries_are_never_heard_below_warnings(tmp_path: Path) -> None:
    def write() -> None:
        logging.getLogger("some.library").info("GET https://example.com/?To=5550143")

    assert lines_of(write, tmp_path, level="debug,libraries=debug") == []
