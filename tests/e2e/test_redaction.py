"""What a running service writes down tells nobody's number, words or secrets.

Must not know the redactor: every line of a real process is read as a thief would read it.
"""

from __future__ import annotations

import re
from pathlib import Path

import orjson

from relay.rehearsal import API_KEY, API_TOKEN, AUTH_TOKEN, FROM_NUMBER, Stage, open_stage
from relay.simulator.scenario import Scenario
from relay.simulator.signing import sign
from tests.e2e.scenes import AGENTS, EXPLANATION, broken, ending, scene

CALLEE, OTHER = "+12025550143", "+12025550187"
ORDER = {"to": CALLEE, "variables": {"business": "Lakeside Dentistry"}}
DAY, TIME = "Ash Wednesday", "half past eleven"
SUBJECT_KEY = "key-of-the-hashes-" * 4
STREAM_TOKEN = re.compile(r"call_\w+\.\d+\.[\w-]{40,}")
FORM = {"CallSid": "CA" + "7" * 32, "To": OTHER, "CallStatus": "ringing", "SpeechResult": EXPLANATION}

TALK = scene(
    "a booking",
    call=ORDER,
    callee={
        "turn": [
            {"say": "I would rather come in spring.", "pause_seconds": 0.2},
            {"say": "Thank you.", "pause_seconds": 0.2},
        ]
    },
    agent={
        "commit_seconds": 0.3,
        "turn": [
            {
                "tool": {"name": "book_appointment", "arguments": {"day": DAY, "time": TIME}},
                "reply": "Then spring it is.",
            },
            {"tool": {"name": "end_call"}, "reply": "Goodbye now."},
        ],
    },
)
# Each makes the service warn, fail or hurry with something confidential at hand.
TROUBLES = [
    broken("agent", "mid-speech", "garbage", call={"to": OTHER}),
    scene("refused", call={"to": OTHER}, carrier={"create": "refused:21219"}),
    scene(
        "keys",
        call={"to": OTHER},
        callee={"turn": [{"press": "4617038641725#", "pause_seconds": 0.2}]},
        agent={
            "commit_seconds": 0.3,
            "told": [{"contains": "4617038641725", "tool": {"name": "end_call"}, "reply": "Goodbye now."}],
        },
    ),
    scene(
        "opt-out",
        call={"to": OTHER},
        callee={"turn": [{"say": "Please stop calling me.", "pause_seconds": 0.2}]},
        agent={"commit_seconds": 0.3, "turn": [{"reply": EXPLANATION}]},
    ),
    broken("agent", "before-ready", "refuse:401", call={"to": OTHER}),  # the last: no call is placed then
]


async def annoy(stage: Stage) -> None:
    """Requests that are refused, each with something that must not be kept."""
    await stage.http.post("/v1/dnc", json={"number": OTHER, "source": "letter"})
    await stage.http.delete(f"/v1/dnc/{OTHER}")
    await stage.http.post("/v1/calls", json={"to": OTHER, "agent": EXPLANATION})
    await stage.http.post("/v1/calls", json={"to": CALLEE, "unknown": DAY})
    await stage.http.get(f"/v1/calls/{OTHER}")
    await stage.http.get("/v1/calls", headers={"Authorization": f"Bearer {API_TOKEN}x"})
    await stage.http.post("/twilio/status", params={"call": OTHER}, data=FORM)
    target = "/twilio/status?call=call_unknown"
    signed = sign(AUTH_TOKEN, f"{stage.http.base_url}{target}".replace("//t", "/t"), FORM.items())
    await stage.http.post(target, data=FORM, headers={"X-Twilio-Signature": signed})


def confidential(scenarios: list[Scenario]) -> set[str]:
    """Everything that was said, sent or configured in confidence."""
    spoken = {turn.say for each in scenarios for turn in each.callee.turn if turn.say}
    spoken |= {turn.press.strip("#") for each in scenarios for turn in each.callee.turn if turn.press}
    spoken |= {turn.reply for each in scenarios for turn in each.agent.turn if turn.reply}
    profile = (AGENTS / "default.toml").read_text("utf-8")
    prompts = {words for words in re.findall(r'^(?!purpose)\w+ = "(.*)"$', profile, re.MULTILINE)}
    fragments = {fragment for words in prompts for fragment in re.split(r" ?\{\{\w+\}\}[.]? ?", words)}
    numbers = {number.removeprefix("+1") for number in (CALLEE, OTHER, FROM_NUMBER)}
    secrets = {AUTH_TOKEN, API_KEY, API_TOKEN, SUBJECT_KEY}
    return (spoken | fragments | numbers | secrets | {DAY, TIME, "Lakeside Dentistry"}) - {""}


async def test_no_line_of_a_run_at_its_most_talkative_tells_what_is_confidential(tmp_path: Path) -> None:
    async with open_stage(
        tmp_path,
        seed=1,
        synthesise=False,
        own_process=True,
        RELAY_LOG_LEVEL="debug",
        RELAY_CAPTURE_DIR=str(tmp_path / "capture"),
        RELAY_AGENTS_DIR=str(AGENTS),
        RELAY_SUBJECT_KEY=SUBJECT_KEY,
    ) as stage:
        performance = await stage.play(TALK)
        for trouble in TROUBLES:
            await stage.play(trouble)
        await annoy(stage)
        assert ending(performance) == ("nobody", "goodbye")
        assert "Then spring it is." in str(performance.record["transcript"])
    written = (tmp_path / "relay.log").read_bytes().decode()
    lines = [orjson.loads(line) for line in written.splitlines()]  # nothing is written beside the log
    events = [line["event"] for line in lines]
    assert events.count("call started") == events.count("call ended") == len(TROUBLES) + 1
    assert {"webhook refused", "serving"} <= set(events)
    plain = "\n".join(str(line) for line in lines)
    assert [words for words in confidential([*TROUBLES, TALK]) if words.lower() in plain.lower()] == []
    captured = "".join(path.read_text("utf-8") for path in (tmp_path / "capture").iterdir())
    assert captured.count('"event":"dtmf"') == len("4617038641725#")
    assert "4617038641725" not in captured
    assert STREAM_TOKEN.findall(plain) == []
