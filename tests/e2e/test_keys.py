"""Keys over real sockets: what the agent presses is what sounds at the telephone, and the talk goes on."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.scenes import ending, quiet_stage, scene
from tests.test_tones import received

KEYS = "w1234567890*#"


async def test_what_the_agent_presses_is_heard_at_the_telephone_and_the_session_goes_on(
    tmp_path: Path,
) -> None:
    played = scene(
        "keys",
        call={"agent": "menu"},
        # Keys are sound to the callee too: only who waits for longer than between two of them hears them all.
        callee={"turn": [{"say": "Yes?", "pause_seconds": 0.2}, {"say": "Thank you.", "pause_seconds": 1.5}]},
        agent={
            "commit_seconds": 0.3,
            "turn": [
                {
                    "tool": {"name": "send_digits", "arguments": {"digits": KEYS}},
                    "reply": "It is done.",
                },
                {"tool": {"name": "end_call"}, "reply": "Goodbye now."},
            ],
        },
    )
    async with quiet_stage(tmp_path) as stage:
        performance = await stage.play(played)
    assert ending(performance) == ("nobody", "goodbye")
    assert performance.ledger.violations == []
    assert performance.call is not None
    (phone,) = performance.call.phones  # one stream, from the first word to the last
    assert (
        "".join(key for key, seconds in received(bytes(phone.heard)) if key and seconds > 0.04)
        == "1234567890*#"
    )
    events = performance.record["events"]
    (pressed,) = [event for event in events if event["event"] == "keys sent"]
    assert pressed["count"] == len(KEYS)
    assert "1234567890" not in str(events)
    results = performance.ledger.select("agent", "received", "tool.result")
    assert results[0].fields["result"] == f'{{"pressed":{len(KEYS)}}}'
