"""Writes the table of the matrix into docs/reliability.md.

Must not know what it says.
"""

from tests.matrix.table import PAGE, with_table

PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
