"""The kill matrix: every fault of a far end, on either leg, at every moment of a call's life."""

import pytest

pytest.register_assert_rewrite("tests.matrix.judgement")
