"""Log lines: JSON or for people, redacted, written by a thread so that a stalled reader stops no call.

Knows no call and no setting: `call_id`, `call_sid`, `stream_sid` and `session_id` come by contextvars.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Final, Literal, Protocol

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from relay.telemetry.redaction import Redactor

LogFormat = Literal["json", "console"]

SUBSYSTEMS: Final = ("calls", "web", "store", "tools", "service", "libraries")

# Lines that may wait for a slow reader: at two a call, some minutes of a busy node in about 4 MB. When it is
# full the new line is dropped and counted, and the count goes before the next line that gets through.
QUEUE_LINES: Final = 10_000

# How long the end of the program waits for a reader that does not read.
FLUSH_SECONDS: Final = 2.0

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def check_levels(text: str) -> str:
    """Text that `read_levels` can read. Raises ValueError, which says what is wrong."""
    read_levels(text)
    return text


def read_levels(text: str) -> dict[str, int]:
    """The least level of each subsystem: one for all, then exceptions, as in `info,web=debug`."""
    common, *exceptions = (part.strip() for part in text.split(","))
    levels = dict.fromkeys(SUBSYSTEMS, common)
    for exception in exceptions:
        subsystem, _, level = exception.partition("=")
        levels[subsystem] = level
    if set(levels) - set(SUBSYSTEMS) or set(levels.values()) - set(_LEVELS):
        raise ValueError(
            f"must be a level ({', '.join(_LEVELS)}), perhaps with exceptions behind it, as info,web=debug,"
            f" for {', '.join(SUBSYSTEMS)}"
        )
    found = {subsystem: _LEVELS[level] for subsystem, level in levels.items()}
    # What libraries chatter about below that may be anything, and nobody has looked at it for secrets.
    return {**found, "libraries": max(found["libraries"], logging.WARNING)}


class LogStream(Protocol):
    """Where lines go: any file with a descriptor, such as `sys.stdout`."""

    def fileno(self) -> int: ...
    def isatty(self) -> bool: ...
    def flush(self) -> None: ...


@contextmanager
def open_logs(
    format: LogFormat | None, levels: str, stream: LogStream, *, secrets: Collection[str] = ()
) -> Iterator[Callable[[], int]]:
    """While open, structlog and the warnings of libraries write lines to `stream`; says how many were lost.

    `format` None: for people on a terminal, else JSON. `levels`: see `read_levels`. `secrets` are never
    written, wherever they turn up. At the end what waits is written, for at most FLUSH_SECONDS.
    """
    chosen = format or ("console" if stream.isatty() else "json")
    render = _render_json if chosen == "json" else _console_renderer(colors=stream.isatty())
    stream.flush()  # what was printed before us comes before us
    writer = LineWriter(stream.fileno(), lambda dropped: render(_dropped_lines(dropped)))
    redactor, least = Redactor(secrets), read_levels(levels)

    def select(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if _LEVELS.get(method, logging.ERROR) < least[event["subsystem"]]:
            raise structlog.DropEvent
        return event

    def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return redactor.mapping(event)

    def write(logger: WrappedLogger, method: str, event: EventDict) -> str:
        writer.write_nowait(render(event))
        raise structlog.DropEvent  # there is no logger behind the queue

    structlog.configure(
        processors=[
            _name_subsystem,
            select,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # without local variables: they would tell speech
            redact,
            write,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(min(least.values())),
    )
    libraries = LibraryLines()
    root = logging.getLogger()
    former_level = root.level
    root.addHandler(libraries)
    root.setLevel(logging.WARNING)
    try:
        yield lambda: writer.dropped
    finally:
        root.removeHandler(libraries)
        root.setLevel(former_level)
        structlog.reset_defaults()
        writer.close()


def _name_subsystem(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.setdefault("subsystem", "service")
    return event


class LibraryLines(logging.Handler):
    """Routes what libraries log through stdlib `logging` into our lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line: a static event, the library's own words under `message`."""
        logger = structlog.get_logger(subsystem="libraries")
        tell = logger.error if record.levelno >= logging.ERROR else logger.warning
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # the library's format and arguments disagree
            message = str(record.msg)
        tell("library log", logger=record.name, message=message, exc_info=record.exc_info)


class LineWriter:
    """A bounded queue of lines and the thread that writes them to a descriptor.

    `tell_dropped(count)` renders the line that owns up to lost ones. SimpleQueue and a look at its length
    instead of a bounded Queue: its put takes no lock, so that a line from a destructor can never dead-lock.
    The descriptor is written directly, since a buffered file that a thread holds blocks the interpreter's
    exit; and it is a duplicate, since a thread still stuck after `close` must not write into its successor.
    """

    def __init__(self, descriptor: int, tell_dropped: Callable[[int], bytes]) -> None:
        self._descriptor = os.dup(descriptor)
        self._tell_dropped = tell_dropped
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()  # bounded in write_nowait
        self.dropped = 0  # only grows; the thread keeps count of what it has told
        # A daemon: it may be stuck in a write that nobody will ever read.
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def write_nowait(self, line: bytes) -> None:
        """Never waits: a line that finds the queue full is dropped and counted."""
        if self._lines.qsize() >= QUEUE_LINES:
            self.dropped += 1
        else:
            self._lines.put(line)

    def close(self) -> None:
        """Writes what waits, for at most FLUSH_SECONDS; then gives up on it."""
        self._lines.put(None)
        self._thread.join(FLUSH_SECONDS)

    def _run(self) -> None:
        told = 0
        try:
            while (line := self._lines.get()) is not None:
                if (dropped := self.dropped) > told:
                    self._write(self._tell_dropped(dropped - told))
                    told = dropped
                self._write(line)
        except OSError:
            # Nobody will ever read, and there is nowhere to say so: what follows is dropped by the bound.
            return
        finally:
            os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # someone made our stdout non-blocking, as a terminal's other users may
                select.select([], [self._descriptor], [])


def _dropped_lines(count: int) -> EventDict:
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return {"timestamp": now, "level": "warning", "event": "log lines dropped", "count": count}


def _render_json(event: EventDict) -> bytes:
    line = {key: event[key] for key in ("timestamp", "level", "event")} | dict(event)
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except (
        TypeError
    ):  # half a surrogate pair, or a number above 64 bits: a line is never lost over its contents
        return json.dumps(line, skipkeys=True).encode() + b"\n"


def _console_renderer(*, colors: bool) -> Callable[[EventDict], bytes]:
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)

    def render(event: EventDict) -> bytes:
        return renderer(None, "", event).encode(errors="backslashreplace") + b"\n"

    return render
