"""Whatever a far end does, whenever it does it: the call ends as the table says, and no other call notices.

Must not know real time or real sockets: the clock jumps, and what is measured is what the relay decided.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.matrix.faults import Cell, cells
from tests.matrix.judgement import judge
from tests.matrix.measure import measured
from tests.matrix.table import PAGE, with_table

TOP = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.xdist_group("matrix")  # in one process, which remembers how each cell went


@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_a_struck_call_ends_or_goes_on_as_the_table_says(cell: Cell) -> None:
    judge(cell.verdict, measured(cell))


def test_every_promise_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert named
    for path, name in named:
        defined = rf"^(?:(?:async )?def {name}\(|{name} = )"  # the second of a state machine's
        assert re.search(defined, (TOP / path).read_text(encoding="utf-8"), re.MULTILINE), name


@pytest.mark.timeout(600)  # by itself it plays all of them
def test_the_table_in_the_docs_is_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "make matrix"
