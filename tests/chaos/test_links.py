"""The network of a simulation is a network: Trio's own suite says so, and each fault is seen as on a wire."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock, check_half_closeable_stream, check_two_way_stream

from relay.chaos.links import End, Link, Weather

WEATHER = Weather(latency_seconds=0.01, buffer_bytes=1000)


def link(weather: Weather = WEATHER) -> Link:
    return Link(weather, random.Random(1))


async def test_both_ends_keep_the_contract_of_a_stream() -> None:
    async def make() -> tuple[End, End]:
        made = link(Weather(latency_seconds=0.0, buffer_bytes=1000))  # the suite has no use for a clock
        await trio.lowlevel.checkpoint()
        return made.relay, made.far

    async def make_full() -> tuple[End, End]:
        ours, theirs = await make()
        ours.send_nowait(bytes(1000))
        theirs.send_nowait(bytes(1000))
        return ours, theirs

    await check_two_way_stream(make, make_full)
    await check_half_closeable_stream(make, make_full)


async def test_bytes_arrive_late_in_order_and_in_pieces(autojump_clock: MockClock) -> None:
    made = link(Weather(latency_seconds=0.1, jitter_seconds=0.5, piece_bytes=3))
    begun_at = trio.current_time()
    assert made.far.send_nowait(b"0123456789") == 10
    received = [await made.relay.receive_some() for _ in range(4)]
    assert received == [b"012", b"345", b"678", b"9"]
    assert 0.1 <= trio.current_time() - begun_at <= 0.6


async def test_a_full_buffer_takes_no_more_until_somebody_reads(autojump_clock: MockClock) -> None:
    made = link()
    assert made.relay.send_nowait(b"x" * 1500) == 1000
    assert made.relay.send_nowait(b"x") == 0
    with trio.move_on_after(60) as waiting:
        await made.relay.send_all(b"x")
    assert waiting.cancelled_caught
    assert len(await made.far.receive_some()) == 1000
    assert made.relay.send_nowait(b"x") == 1


async def test_a_clog_holds_everything_back_and_then_lets_it_through(autojump_clock: MockClock) -> None:
    made = link()
    made.befall("clog", 5.0)
    made.far.push(b"late")
    made.far.close()
    assert await made.relay.receive_some() == b"late"
    assert trio.current_time() == pytest.approx(5.0)
    assert await made.relay.receive_some() == b""


async def test_nobody_hears_of_a_black_hole(autojump_clock: MockClock) -> None:
    made = link()
    made.befall("black-hole", 0.0)
    made.far.close()
    made.relay.send_nowait(b"into nothing")
    with trio.move_on_after(3600) as waiting:
        await made.relay.receive_some()
    assert waiting.cancelled_caught


async def test_a_reset_breaks_both_ends_and_loses_what_is_on_the_way(autojump_clock: MockClock) -> None:
    made = link()
    made.far.push(b"arrived")
    await trio.sleep(0.05)
    made.far.push(b"on the way")
    made.befall("reset", 0.0)
    assert await made.relay.receive_some() == b"arrived"
    with pytest.raises(trio.BrokenResourceError):
        await made.relay.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        made.relay.send_nowait(b"x")


async def test_after_a_fin_the_next_sends_break_and_after_a_half_close_they_do_not(
    autojump_clock: MockClock,
) -> None:
    for kind, breaks in (("fin", True), ("half-close", False)):
        made = link()
        made.befall(kind, 0.0)
        assert await made.relay.receive_some() == b""
        await trio.sleep(1)
        if breaks:
            with pytest.raises(trio.BrokenResourceError):
                made.relay.send_nowait(b"x")
        else:
            assert made.relay.send_nowait(b"x") == 1


async def test_a_trickle_is_a_byte_a_second(autojump_clock: MockClock) -> None:
    made = link()
    made.befall("trickle", 0.0)
    made.far.push(b"slow")
    assert [await made.relay.receive_some() for _ in range(4)] == [b"s", b"l", b"o", b"w"]
    assert trio.current_time() == pytest.approx(4.0, abs=1.1)


async def test_stop_reading_and_mute_are_one_direction_each(autojump_clock: MockClock) -> None:
    made = link()
    made.befall("stop-reading", 0.0)
    made.far.push(b"still talks")
    assert await made.relay.receive_some() == b"still talks"
    assert made.relay.send_nowait(b"x" * 1500) == 1000
    made = link()
    made.befall("mute", 0.0)
    made.relay.send_nowait(b"still hears")
    assert await made.far.receive_some() == b"still hears"
