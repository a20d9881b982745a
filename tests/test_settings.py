"""Settings: what the operator may write, and what is said about mistakes."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relay.settings import Accounts, ConfigurationError, Settings, load_api_token, load_settings
from relay.shapes import is_loopback
from relay.web.bearer import token_digest

SID = "AC" + "0123456789abcdef" * 2
SERVING = {
    "PUBLIC_URL": "https://relay.example.com/",
    "TWILIO_ACCOUNT_SID": SID,
    "TWILIO_AUTH_TOKEN": "first-secret",
    "TWILIO_FROM_NUMBER": "+12025550100",
    "ASSEMBLYAI_API_KEY": "second-secret",
}


def problems(env: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(env)
    return caught.value.problems


def expected_example() -> str:
    """`.env.example` as the model tells it: what serving needs is left to fill in."""
    blocks = ["# Read as .env from the working directory. The environment wins; blank means unset.\n"]
    for attribute, field in Settings.model_fields.items():
        assert field.examples
        line = (
            f"{field.alias}=" if attribute in Accounts.__slots__ else f"# {field.alias}={field.examples[0]}"
        )
        blocks.append(f"# {field.description}\n{line}\n")
    return "\n".join(blocks)


def test_env_example_lists_every_setting_in_the_order_of_the_model() -> None:
    example = Path(__file__).parent.parent / ".env.example"
    assert example.read_text(encoding="utf-8") == expected_example()


def test_the_example_of_each_setting_is_itself_accepted() -> None:
    for field in Settings.model_fields.values():
        assert field.alias is not None
        assert field.examples is not None
        emulator = {"TWILIO_API_URL": "http://127.0.0.1:9000"}  # without it no RELAY_CLOCK is accepted
        load_settings(emulator | {field.alias: field.examples[0]})


def test_nothing_set_gives_the_defaults_of_the_contract() -> None:
    settings = load_settings({})
    assert settings.bind == "127.0.0.1:8080"
    assert settings.client_url == "http://127.0.0.1:8080"
    assert settings.assemblyai_ws_url == "wss://agents.assemblyai.com/v1/ws"
    assert settings.database_url.get_secret_value() == "sqlite:///relay.db"
    assert (settings.max_call_seconds, settings.max_calls, settings.drain_seconds) == (600, 200, 660)
    assert (settings.dials_per_second, settings.ring_seconds, settings.lead_silence_ms) == (1, 30, 250)
    assert (settings.agents_dir, settings.data_dir) == (Path("agents"), Path("relay-data"))
    assert settings.barge_in == "interrupted"
    assert settings.vad_threshold is settings.min_silence_ms is settings.interrupt_response is None


def test_blank_is_unset_and_blanks_around_a_value_do_not_count() -> None:
    settings = load_settings({"GREETING": "  ", "RELAY_MAX_CALLS": "", "AGENT_VOICE": " alba\n"})
    assert (settings.greeting, settings.max_calls, settings.agent_voice) == (None, 200, "alba")


def test_dotenv_is_read_from_the_working_directory_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text('GREETING="Good ${day}"\nAGENT_VOICE=ivy\nRELAY_MAX_CALLS=3\nNOTHING\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_MAX_CALLS", "4")
    monkeypatch.setenv("AGENT_VOICE", "")  # blank is unset, so it hides nothing
    settings = load_settings()
    assert (settings.greeting, settings.agent_voice, settings.max_calls) == ("Good ${day}", "ivy", 4)


def test_an_unreadable_dotenv_is_a_problem_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_bytes(b"GREETING=\xff\xfe\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"^\.env: cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("PUBLIC_URL", "http://relay.example.com", "https://"),
        ("PUBLIC_URL", "http://127.0.0.1.example.com", "https://"),
        ("PUBLIC_URL", "relay.example.com", "host"),
        ("PUBLIC_URL", "https://relay.example.com?a=b", "without user, query or fragment"),
        ("PUBLIC_URL", "https://me:word@relay.example.com", "without user, query or fragment"),
        ("PUBLIC_URL", "https://relay.example.com:port", "not a URL"),
        ("PUBLIC_URL", "https://relay.exa mple.com", "without spaces"),
        ("TWILIO_ACCOUNT_SID", "AC123", "32 hexadecimal"),
        ("TWILIO_FROM_NUMBER", "02025550100", "E.164"),
        ("TWILIO_API_URL", "http://api.twilio.com", "loopback"),
        ("ASSEMBLYAI_WS_URL", "ws://agents.assemblyai.com/v1/ws", "loopback"),
        ("ASSEMBLYAI_WS_URL", "https://agents.assemblyai.com", "wss://"),
        ("RELAY_URL", "ftp://relay.example.com", "http://"),
        ("AGENT_KEYTERMS", "a," * 101, "100 terms"),
        ("AGENT_VOICE_FOCUS", "telescope", "'near-field' or 'far-field'"),
        ("VAD_THRESHOLD", "1.5", "less than or equal to 1"),
        ("VAD_THRESHOLD", "nan", "equal to"),
        ("MIN_SILENCE_MS", "-1", "greater than or equal to 0"),
        ("INTERRUPT_RESPONSE", "perhaps", "boolean"),
        ("INTERRUPTION_DELAY_MS", "1001", "less than or equal to 1000"),
        ("BARGE_IN", "always", "'interrupted' or 'speech-started'"),
        ("RELAY_BIND", "8080", "address and a port"),
        ("RELAY_BIND", "127.0.0.1:65536", "address and a port"),
        ("RELAY_DATABASE_URL", "mysql://localhost/relay", "sqlite:///"),
        ("RELAY_MAX_CALL_SECONDS", "59", "greater than or equal to 60"),
        ("RELAY_MAX_CALL_SECONDS", "14401", "less than or equal to 14400"),
        ("RELAY_MAX_CALLS", "many", "integer"),
        ("RELAY_DIALS_PER_SECOND", "0", "greater than 0"),
        ("RELAY_DIALS_PER_SECOND", "inf", "less than or equal to"),
        ("RELAY_CALLS_PER_HOUR", "0", "greater than or equal to 1"),
        ("RELAY_CLOCK", "2026-03-10T18:00:00", "timezone"),
        ("RELAY_LOG_FORMAT", "xml", "'json' or 'console'"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable_the_fault_and_the_remedy(
    name: str, value: str, wrong: str
) -> None:
    (line,) = problems({name: value})
    assert line.startswith(f"{name}: ")
    assert wrong in line
    assert f"For example: {name}=" in line
    assert "\n" not in line


def test_all_bad_values_are_told_at_once() -> None:
    lines = problems({"RELAY_MAX_CALLS": "0", "RELAY_BIND": "here", "BARGE_IN": "no"})
    assert {line.partition(":")[0] for line in lines} == {"RELAY_MAX_CALLS", "RELAY_BIND", "BARGE_IN"}


@pytest.mark.parametrize("name", [field.alias for field in Settings.model_fields.values()])
def test_no_message_repeats_a_value_since_secrets_are_pasted_into_wrong_variables(name: str) -> None:
    said = ""
    try:
        load_settings({name: "Sw0rdfish://Sw0rdfish"})
    except ConfigurationError as error:
        said = f"{error} {error.__cause__}"
    assert "Sw0rdfish" not in said


@pytest.mark.parametrize(
    "name", ["TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_PREVIOUS", "ASSEMBLYAI_API_KEY", "RELAY_API_TOKEN"]
)
def test_secrets_do_not_show_in_the_text_of_the_settings(name: str) -> None:
    settings = load_settings(
        {name: "Sw0rdfish", "RELAY_DATABASE_URL": "postgresql+psycopg://me:Sw0rdfish@db/relay"}
    )
    assert "Sw0rdfish" not in f"{settings} {settings!r}"


def test_of_the_token_of_the_api_only_its_digest_is_kept_however_it_was_given() -> None:
    digest = f"sha256:{hashlib.sha256(b'Sw0rdfish').hexdigest()}"
    for given in ("Sw0rdfish", digest):
        settings = load_settings({"RELAY_API_TOKEN": given})
        assert settings.api_token is not None
        assert settings.api_token.get_secret_value() == digest == token_digest("Sw0rdfish")
        assert settings.secrets().count(digest) == 1
    (line,) = problems({"RELAY_API_TOKEN": "sha256:Sw0rdfish"})
    assert line.startswith("RELAY_API_TOKEN: must be the token, or sha256:")


def test_commands_need_the_token_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELAY_API_TOKEN", " Sw0rdfish ")
    assert load_api_token() == "Sw0rdfish"
    monkeypatch.setenv("RELAY_API_TOKEN", token_digest("Sw0rdfish"))
    with pytest.raises(ConfigurationError, match="is a digest"):
        load_api_token()
    monkeypatch.delenv("RELAY_API_TOKEN")
    with pytest.raises(ConfigurationError, match="is not set"):
        load_api_token()


def test_serving_needs_both_accounts_and_names_all_that_is_missing_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({}).require_serving()
    assert [line.partition(":")[0] for line in caught.value.problems] == list(SERVING)
    accounts = load_settings(SERVING).require_serving()
    assert accounts.public_url == "https://relay.example.com"  # without its trailing slash
    assert accounts.twilio_auth_token.get_secret_value() == "first-secret"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000", "http://localhost:9000", "http://127.8.9.1", "http://[::1]:9"]
)
def test_cleartext_is_for_loopback(url: str) -> None:
    socket_url = url.replace("http", "ws", 1)
    settings = load_settings({"PUBLIC_URL": url, "TWILIO_API_URL": url, "ASSEMBLYAI_WS_URL": socket_url})
    assert (settings.public_url, settings.twilio_api_url, settings.assemblyai_ws_url) == (
        url,
        url,
        socket_url,
    )


def test_an_address_is_loopback_only_where_nothing_leaves_the_machine() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.255.0.9", "::1")))
    assert not any(
        map(is_loopback, (None, "", "0.0.0.0", "10.0.0.1", "::", "localhost.example.com", "::ffff:8.8.8.8"))
    )


def test_the_clock_may_be_set_only_where_no_telephone_can_ring() -> None:
    instant = {"RELAY_CLOCK": "2026-03-10T18:00:00Z"}
    (line,) = problems(instant)
    assert line.startswith("RELAY_CLOCK: ")
    assert "TWILIO_API_URL" in line
    settings = load_settings(instant | {"TWILIO_API_URL": "http://127.0.0.1:9000"})
    assert settings.clock == datetime(2026, 3, 10, 18, tzinfo=UTC)


def test_the_shorter_silence_is_not_longer_than_the_longer_one() -> None:
    (line,) = problems({"MIN_SILENCE_MS": "2", "MAX_SILENCE_MS": "1"})
    assert line.startswith("MIN_SILENCE_MS: ")


@pytest.mark.parametrize("name", ["MIN_SILENCE_MS", "MAX_SILENCE_MS"])
def test_setting_a_silence_is_warned_of_since_it_switches_off_adaptive_pacing(name: str) -> None:
    assert any(name in warning and "pacing" in warning for warning in load_settings({name: "500"}).warnings())


def test_a_folder_of_agents_that_is_named_and_not_there_is_a_warning(tmp_path: Path) -> None:
    assert load_settings({"RELAY_API_TOKEN": "word", "RELAY_AGENTS_DIR": str(tmp_path)}).warnings() == []
    (warning,) = load_settings({"RELAY_API_TOKEN": "word", "RELAY_AGENTS_DIR": f"{tmp_path}/s"}).warnings()
    assert "RELAY_AGENTS_DIR names no folder" in warning


def test_a_name_that_is_nearly_a_setting_is_a_warning_and_others_are_none_of_ours() -> None:
    env = {"RELAY_API_TOKEN": "word", "RELAY_MAX_CALL": "9", "RELAY_TOOL_SECRET_CRM": "word", "HOME": "/root"}
    env["RELAY_TAKING_CALLS_SERVICE_HOST"] = "10.0.0.1"  # by which a cluster tells of a service of this name
    assert load_settings(env).warnings() == ["RELAY_MAX_CALL is no setting; did you mean RELAY_MAX_CALLS?"]


def test_a_sound_configuration_has_no_warnings() -> None:
    assert load_settings(SERVING | {"RELAY_API_TOKEN": "word"}).warnings() == []
    assert any(
        "RELAY_DRAIN_SECONDS" in warning for warning in load_settings({"RELAY_DRAIN_SECONDS": "5"}).warnings()
    )


def test_key_terms_are_parted_by_commas() -> None:
    assert load_settings({"AGENT_KEYTERMS": "Acme, SKU-12 ,,"}).agent_keyterms == ("Acme", "SKU-12")


def test_an_ipv6_address_is_bound_without_its_brackets() -> None:
    assert load_settings({"RELAY_BIND": "[::1]:0"}).bind == "[::1]:0"
