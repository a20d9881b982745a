"""What a process holds on to, over more calls than the other tests have time for: `make campaigns`."""

from __future__ import annotations

import pytest

from relay.chaos.soak import run_soak

SEED = 20_000


@pytest.mark.timeout(1200)  # two and a half minutes on a core of its own
def test_a_thousand_calls_leave_nothing_behind() -> None:
    samples, broken = run_soak(SEED, calls=1300)
    assert broken == []
    assert samples[-1].calls == 1300
    assert samples[-1].calls_held == 0
