"""A CSV file of any length as requests that the service takes: read whole first, then sent in batches.

Knows no list and no book: what a line must be is its caller's to say.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress

from relay.cli.client import Client
from relay.cli.terminal import CommandFailed

BATCH_LINES = 1000  # the most that the service takes in one request
BATCH_BYTES = 60_000  # a little less than the longest body that the service reads


def count_lines(file: Path, read: Callable[[TextIO], Iterator[object]], mistake: type[ValueError]) -> int:
    """How many entries a file has; CommandFailed at its first mistake."""
    with _reading(file) as text:
        try:
            return sum(1 for _ in read(text))
        except mistake as problem:
            raise CommandFailed(f"{file}, {problem}; nothing was imported") from None


def send_lines(
    client: Client,
    path: str,
    file: Path,
    lines: int,
    query: Mapping[str, str],
    at_last: Mapping[str, str] = {},
) -> dict[str, int]:
    """Send a file in batches, each of which is taken whole or not at all; the sums of what was answered.

    `at_last` joins the query of the last one.
    """
    counts: Counter[str] = Counter()
    watching = Console(stderr=True)
    with _reading(file) as text, Progress(console=watching, disable=not watching.is_terminal) as progress:
        task = progress.add_task("importing", total=lines)
        for batch, is_last in _batches(text):
            params = {**query, **(at_last if is_last else {})}
            try:
                counts.update(client.ask("POST", path, params=params, content=batch.encode()))
            except CommandFailed as problem:
                done = sum(counts.values())
                raise CommandFailed(
                    f"{problem} ({done} of {lines} lines are imported; to import them again does no harm)"
                ) from None
            progress.update(task, completed=sum(counts.values()))
    return counts


def _batches(text: TextIO) -> Iterator[tuple[str, bool]]:
    """The lines of a CSV in texts that each have its head and fit into one request; and which is the last."""
    rows = csv.reader(text)
    head = _as_csv(next(rows))
    batch = [head]
    size = len(head.encode())
    for line in map(_as_csv, rows):
        if len(batch) > BATCH_LINES or size + len(line.encode()) > BATCH_BYTES:
            yield "".join(batch), False
            batch = [head]
            size = len(head.encode())
        batch.append(line)
        size += len(line.encode())
    yield "".join(batch), True


def _as_csv(row: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


@contextmanager
def _reading(file: Path) -> Iterator[TextIO]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            yield text
    except (OSError, UnicodeDecodeError) as problem:
        raise CommandFailed(f"{file} cannot be read as UTF-8 ({problem})") from None
