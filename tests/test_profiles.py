"""An agent's file becomes one session.update, and nothing takes the disclosure out of it."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.outcomes import Refusal
from relay.profiles import LONGEST_VALUE, Profile, ProfileError, TurnDetection, read_profile
from relay.script import LONGEST_OPENING, Announcement, Overrides, announcement, compose, resume
from tests.session_schema import faults

DISCLOSURE = "Hello, this is the automated assistant of {{business}}."
TOOL = {"type": "function", "name": "end_call", "description": "Hang up.", "parameters": {"type": "object"}}


def profile(**changes: Any) -> Profile:
    fields = {
        "name": "default",
        "purpose": "informational",
        "disclosure": DISCLOSURE,
        "greeting": "Is this a good time?",
        "system_prompt": "You work for {{ business }}.",
        "variables": {"business": "Acme"},
    }
    return Profile.model_validate({**fields, **changes})


def session_of(
    agent: Profile, overrides: Overrides | None = None, variables: dict[str, str] | None = None
) -> dict[str, Any]:
    session = compose(agent, overrides or Overrides(), variables or {}, ())
    assert not isinstance(session, Refusal), session
    return session


def refusal_of(agent: Profile, variables: dict[str, str]) -> Refusal:
    refusal = compose(agent, Overrides(), variables, ())
    assert isinstance(refusal, Refusal)
    return refusal


def test_a_plain_agent_becomes_exactly_this() -> None:
    assert session_of(profile()) == {
        "system_prompt": "You work for Acme.",
        "greeting": "Hello, this is the automated assistant of Acme. Is this a good time?",
        "input": {"type": "audio", "format": {"encoding": "audio/pcmu"}},
        "output": {"type": "audio", "format": {"encoding": "audio/pcmu"}},
    }


def test_an_agent_with_everything_becomes_exactly_this() -> None:
    agent = profile(
        voice="alba",
        voice_focus="near-field",
        keyterms=("Acme", "SKU-12"),
        turn_detection=TurnDetection(vad_threshold=0.4, interrupt_response=True),
    )

    assert compose(agent, Overrides(), {"business": "Zenith"}, [TOOL]) == {
        "system_prompt": "You work for Zenith.",
        "greeting": "Hello, this is the automated assistant of Zenith. Is this a good time?",
        "input": {
            "type": "audio",
            "format": {"encoding": "audio/pcmu"},
            "keyterms": ["Acme", "SKU-12"],
            "voice_focus": "near-field",
            "turn_detection": {"vad_threshold": 0.4, "interrupt_response": True},
        },
        "output": {"type": "audio", "format": {"encoding": "audio/pcmu"}, "voice": "alba"},
        "tools": [TOOL],
    }


def test_settings_win_over_the_profile_key_by_key() -> None:
    agent = profile(voice="alba", turn_detection=TurnDetection(vad_threshold=0.4, min_silence=900))
    session = session_of(
        agent,
        Overrides(
            voice="vera",
            voice_focus="far-field",
            keyterms=("Zenith",),
            turn_detection=TurnDetection(vad_threshold=0.0, interrupt_response=False, interruption_delay=0),
        ),
    )

    assert session["output"]["voice"] == "vera"
    assert session["input"]["voice_focus"] == "far-field"
    assert session["input"]["keyterms"] == ["Zenith"]
    assert session["input"]["turn_detection"] == {
        "vad_threshold": 0.0,
        "min_silence": 900,
        "interrupt_response": False,
        "interruption_delay": 0,
    }


def test_greeting_and_prompt_of_the_default_agent_are_replaced_and_nothing_else() -> None:
    session = session_of(profile(), Overrides(greeting="Hi, {{business}} here.", system_prompt="Be brief."))

    assert session["greeting"] == "Hello, this is the automated assistant of Acme. Hi, Acme here."
    assert session["system_prompt"] == "Be brief."


def test_another_agent_keeps_its_own_words() -> None:
    overrides = Overrides(greeting="Hi.", system_prompt="Be brief.", voice="vera")
    session = session_of(profile(name="collections"), overrides)

    assert session["greeting"].endswith("Is this a good time?")
    assert session["system_prompt"] == "You work for Acme."
    assert session["output"]["voice"] == "vera"


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_greeting_leaves_the_disclosure(blank: str) -> None:
    session = session_of(profile(), Overrides(greeting=blank))

    assert session["greeting"] == "Hello, this is the automated assistant of Acme."


def test_listening_and_speaking_are_the_profiles_own() -> None:
    agent = profile(language="de-DE", transcription_mode="min_latency", volume=0)
    session = session_of(agent)

    assert session["input"]["language_codes"] == ["de"]
    assert session["input"]["transcription_mode"] == "min_latency"
    assert session["output"]["volume"] == 0
    assert announcement(profile(disclosure_mode="carrier", language="de-DE"), {}) == Announcement(
        "Hello, this is the automated assistant of Acme.", "de-DE"
    )


def test_a_blank_voice_is_no_voice() -> None:
    assert "voice" not in session_of(profile(voice=""))["output"]


def test_the_default_agent_of_the_package_can_be_composed() -> None:
    text = resources.files("relay").joinpath("agents/default.toml").read_text()
    session = session_of(read_profile("default", text, where="default.toml"))

    assert len(session["greeting"]) <= LONGEST_OPENING


# ---- variables -------------------------------------------------------------------------------------------


def test_a_variable_without_a_value_is_asked_for_by_name() -> None:
    refusal = refusal_of(profile(variables={}, system_prompt="{{day}} {{day}} {{hour}}"), {"hour": "ten"})

    assert refusal.code == "variable-missing"
    assert "needs a value for: business, day (`relay call --var" in refusal.message


def test_a_long_value_is_refused_by_name() -> None:
    refusal = refusal_of(profile(), {"business": "x" * (LONGEST_VALUE + 1)})

    assert (refusal.code, "business" in refusal.message) == ("variable-too-long", True)


def test_a_value_that_nobody_asked_for_changes_nothing() -> None:
    assert session_of(profile(), variables={"other": "y" * 9999}) == session_of(profile())


def test_a_blank_value_is_one_outside_the_disclosure() -> None:
    session = session_of(profile(system_prompt="Notes: {{notes}}"), variables={"notes": ""})

    assert session["system_prompt"] == "Notes:"


def test_an_opening_that_takes_too_long_is_refused() -> None:
    refusal = refusal_of(profile(greeting="x" * LONGEST_OPENING), {})

    assert refusal.code == "opening-too-long"


# ---- the disclosure --------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\x00", "{{}}", "\u200b", "\u202e", "\ud800", "--"])
def test_a_caller_without_a_name_is_refused(blank: str) -> None:
    assert refusal_of(profile(), {"business": blank}).code == "variable-missing"


@pytest.mark.parametrize(
    "disclosure", ["", " " * 40, "{{business}}" * 9, "Hi. {{business}} {{a_very_long_name}}"]
)
def test_a_disclosure_of_variables_and_blanks_is_none(disclosure: str) -> None:
    with pytest.raises(ValueError, match="say who calls"):
        profile(disclosure=disclosure)


@pytest.mark.parametrize(
    ("disclosure", "greeting"),
    [
        ("Hello, this is a machine of Acme {{", "business}}!"),
        ("Hello, this is a machine of Acme {", "{business}}!"),
        ("Hello, this is a machine of Acme {{business", "}}!"),
    ],
)
def test_no_place_reaches_from_the_disclosure_into_the_greeting(disclosure: str, greeting: str) -> None:
    session = session_of(profile(disclosure=disclosure), Overrides(greeting=greeting))

    assert session["greeting"] == f"{disclosure} {greeting}"


TRICKS = st.lists(
    st.sampled_from(
        ["{{", "}}", "{", "}", "business", "{{business}}", "{{disclosure}}", "\\1", "\\g<0>", "\n"]
    )
    | st.text(max_size=5),
    max_size=6,
).map("".join)


@given(value=TRICKS, greeting=st.none() | TRICKS, other=TRICKS)
def test_nothing_empties_shadows_or_reorders_the_disclosure(
    value: str, greeting: str | None, other: str
) -> None:
    agent = profile(system_prompt="{{business}}")
    session = compose(agent, Overrides(greeting=greeting), {"business": value, "disclosure": other}, ())
    if isinstance(session, Refusal):
        assert session.code in ("variable-missing", "opening-too-long")
        return
    name = session["system_prompt"]

    assert any(map(str.isalnum, name))
    assert session["greeting"].startswith(DISCLOSURE.replace("{{business}}", name))


@given(value=st.text(max_size=LONGEST_VALUE))
def test_a_value_reaches_the_wire_as_one_line_of_text_without_places(value: str) -> None:
    session = session_of(profile(system_prompt="[{{notes}}]"), variables={"notes": value})
    filled = session["system_prompt"]

    assert (filled[0], filled[-1]) == ("[", "]")
    assert len(filled.splitlines()) == 1
    assert not set("{}\x00\r\n\u202e") & set(filled)


# ---- what the vendor refuses -----------------------------------------------------------------------------


maybe = st.none()
silences = maybe | st.integers(0, 5000)
turn_detections = st.builds(
    TurnDetection,
    vad_threshold=maybe | st.floats(0, 1),
    min_silence=silences,
    max_silence=silences,
    interrupt_response=maybe | st.booleans(),
    interruption_delay=maybe | st.integers(0, 1000),
)
focuses = st.sampled_from([None, "near-field", "far-field"])
voices = st.sampled_from([None, "", "alba"])
keyterm_lists = st.lists(st.sampled_from(["Acme", "SKU-12"])).map(tuple)


@given(
    own=st.fixed_dictionaries(
        {
            "voice": voices,
            "voice_focus": focuses,
            "keyterms": keyterm_lists,
            "turn_detection": turn_detections,
            "language": st.sampled_from([None, "de-DE"]),
            "transcription_mode": st.sampled_from([None, "min_latency", "balanced", "max_accuracy"]),
            "volume": st.none() | st.integers(0, 100),
        }
    ),
    theirs=st.builds(
        Overrides,
        greeting=st.sampled_from([None, "", "Hi."]),
        system_prompt=st.sampled_from([None, "", "Be brief."]),
        voice=voices,
        voice_focus=focuses,
        keyterms=keyterm_lists,
        turn_detection=turn_detections,
    ),
    tools=st.sampled_from([(), (TOOL,)]),
)
def test_nothing_is_null_and_no_key_is_unknown_to_the_vendor(
    own: dict[str, Any], theirs: Overrides, tools: tuple[dict[str, Any], ...]
) -> None:
    session = compose(profile(**own), theirs, {}, tools)
    assume(not isinstance(session, Refusal))
    assert isinstance(session, dict)

    assert faults({"type": "session.update", "session": session}) == []
    assert ("voice" in session["output"]) == bool(own["voice"] or theirs.voice)
    assert session["input"]["format"] == session["output"]["format"] == {"encoding": "audio/pcmu"}
    assert session["greeting"]
    assert session["system_prompt"]
    for optional in ("keyterms", "turn_detection"):
        assert session["input"].get(optional) not in ([], {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"vad_threshold": 1.1},
        {"vad_threshold": -0.1},
        {"vad_threshold": float("nan")},
        {"min_silence": -1},
        {"max_silence": -1},
        {"interruption_delay": 1001},
        {"kind": "server_vad"},
    ],
)
def test_turn_detection_outside_the_published_ranges_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TurnDetection(**wrong)


# ---- the carrier's disclosure, and stored agents ----------------------------------------------------------

STORED = {"disclosure_mode": "carrier", "agent_id": "agent_1", "greeting": "", "system_prompt": ""}


def test_what_the_carrier_discloses_the_agent_does_not_say_again() -> None:
    agent = profile(disclosure_mode="carrier")

    assert session_of(agent)["greeting"] == "Is this a good time?"
    assert announcement(agent, {"business": "Zenith"}) == Announcement(
        "Hello, this is the automated assistant of Zenith.", "en-US"
    )
    assert announcement(profile(), {}) is None


@pytest.mark.parametrize("text", ["disclosure", "greeting"])
def test_carrier_and_agent_may_each_speak_as_long_as_an_opening_lasts(text: str) -> None:
    agent = profile(disclosure_mode="carrier", variables={"business": "x" * 100}, greeting="y" * 199)

    assert not isinstance(compose(agent, Overrides(), {}, ()), Refusal)
    long = profile(disclosure_mode="carrier", **{text: "z" * (LONGEST_OPENING + 1)})
    assert refusal_of(long, {}).code == "opening-too-long"


def test_a_stored_agent_is_named_and_nothing_else_whatever_the_settings_say() -> None:
    agent = profile(**STORED)
    settings = Overrides(voice="alba", keyterms=("Acme",), greeting="Hi!", system_prompt="Be rude.")

    assert session_of(agent, settings) == {"agent_id": "agent_1"}
    assert resume(session_of(agent), [("callee", "Yes?")], heard=True) == {"agent_id": "agent_1"}
    assert announcement(agent, {}) == Announcement("Hello, this is the automated assistant of Acme.")


def test_a_stored_agents_disclosure_still_needs_its_variables() -> None:
    assert refusal_of(profile(**STORED, variables={}), {}).code == "variable-missing"


# ---- files -----------------------------------------------------------------------------------------------

FILE = """
purpose = "informational"
disclosure = "Hello, I am a machine that calls."
system_prompt = "Be kind."
"""
CARRIER = 'disclosure_mode = "carrier"\n'
STORED_FILE = FILE.replace('system_prompt = "Be kind."', 'agent_id = "agent_1"')


def test_a_file_becomes_the_agent_of_its_name() -> None:
    agent = read_profile("night", FILE, where="agents/night.toml")

    assert (agent.name, agent.greeting, agent.voice, agent.tools) == ("night", "", None, ())


def test_a_refused_stored_agent_is_told_the_remedy() -> None:
    with pytest.raises(ProfileError, match='set disclosure_mode = "carrier"'):
        read_profile("night", STORED_FILE, where="agents/night.toml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("purpose = ", "agents/night.toml: not TOML: "),
        (FILE.replace("informational", "chat"), "agents/night.toml: purpose: "),
        (FILE + 'mood = "good"', "agents/night.toml: mood: there is no such key; there are purpose, "),
        (FILE + "volum = 1", "agents/night.toml: volum: there is no such key; did you mean volume?"),
        (FILE + "volume = 101", "agents/night.toml: volume: must be less than or equal to 100"),
        (FILE + 'keyterms = "Acme"', "agents/night.toml: keyterms: must be a list: put it between [ and ]"),
        (FILE + f'keyterms = ["{"x" * 51}"]', "agents/night.toml: keyterms[0]: "),
        (FILE + "voice = 1", "agents/night.toml: voice: must be text: put it between quotation marks"),
        (FILE + 'language = "de"', "agents/night.toml: language: must be a language and a country, as "),
        (
            FILE + 'opt_out_words = ["!"]',
            "agents/night.toml: opt_out_words[0]: must be words that people say",
        ),
        (
            FILE + 'transcription_mode = "fast"',
            "agents/night.toml: transcription_mode: must be 'min_latency'",
        ),
        (FILE + '[clips]\ngoodbye = "x"', "agents/night.toml: clips.goodbye: must be 'opted-out', "),
        (FILE + "[limits]\nsilence = 9", "agents/night.toml: limits.silence: there is no such key; did you "),
        (FILE + "[limits]\nfiller_seconds = 30", "agents/night.toml: limits: filler_seconds, nudge_seconds"),
        (FILE + '[[http_tools]]\nname = "x"', "agents/night.toml: http_tools[0].description: is missing. "),
        (FILE.replace("purpose", "propose"), "agents/night.toml: purpose: is missing. What the call is for"),
        (FILE.replace("Be kind.", ""), "agents/night.toml: system_prompt: "),
        (FILE + "[turn_detection]\nvad_threshold = 2", "agents/night.toml: turn_detection.vad_threshold: "),
        (FILE + 'disclosure_mode = "carrier"', "agents/night.toml: greeting: "),
        (FILE + CARRIER + 'greeting = "{{words}}"', "agents/night.toml: greeting: "),
        (STORED_FILE + 'disclosure_mode = "greeting"', "agents/night.toml: agent_id: "),
        (STORED_FILE + CARRIER + 'system_prompt = "Be kind."', "agents/night.toml: system_prompt: "),
        (STORED_FILE + CARRIER + 'greeting = "Hello?"', "agents/night.toml: greeting: "),
        (STORED_FILE + CARRIER + 'voice = "alba"', "agents/night.toml: voice: "),
        (STORED_FILE + CARRIER + 'tools = ["end_call"]', "agents/night.toml: tools: "),
        (STORED_FILE + CARRIER + 'tools_file = "night.py"', "agents/night.toml: tools_file: "),
        (STORED_FILE + CARRIER + 'keyterms = ["Acme"]', "agents/night.toml: keyterms: "),
        (STORED_FILE + CARRIER + "volume = 50", "agents/night.toml: volume: "),
        (
            STORED_FILE + CARRIER + 'transcription_mode = "balanced"',
            "agents/night.toml: transcription_mode: ",
        ),
        (STORED_FILE + CARRIER + "[turn_detection]", "agents/night.toml: turn_detection: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_key(text: str, complaint: str) -> None:
    with pytest.raises(ProfileError) as problem:
        read_profile("night", text, where="agents/night.toml")

    assert str(problem.value).startswith(complaint)
