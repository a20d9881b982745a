"""What the operator sets: the only reader of the environment and of `.env`.

Knows what a value must look like, never what it is used for; starts nothing and connects to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from relay.shapes import (
    DIGEST_PREFIX,
    AccountSid,
    Bind,
    ClientURL,
    DatabaseURL,
    Hosts,
    KeyTerms,
    Milliseconds,
    Networks,
    PhoneNumber,
    SocketURL,
    SubjectKey,
    TokenDigest,
    WebURL,
    is_loopback,
    what_is_wrong,
)
from relay.telemetry.logs import check_levels

LogLevels = Annotated[str, AfterValidator(check_levels)]
ENV_FILE: Final = Path(".env")
TOOL_PREFIX: Final = "RELAY_TOOL_SECRET_"  # what begins so is at hand for HTTP tools, and nothing else is
TOOL_SECRETS: Final = TOOL_PREFIX + "NAME"


class ConfigurationError(Exception):
    """The settings cannot be used. One line a problem: the variable, what is wrong, how to mend it.

    No line ever repeats a value, since a secret is easily pasted into the wrong variable.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _setting(name: str, meaning: str, default: Any = None, *, example: str = "", **bounds: Any) -> Any:
    """One environment variable. `meaning` is also its comment in `.env.example`, `example` its remedy."""
    return Field(default, alias=name, description=meaning, examples=[example or str(default)], **bounds)


@dataclass(frozen=True, slots=True)
class Accounts:
    """What serving cannot do without, present and therefore not optional."""

    public_url: str
    twilio_account_sid: str
    twilio_auth_token: SecretStr
    twilio_from_number: str
    assemblyai_api_key: SecretStr


class Settings(BaseModel):
    """Every setting, in the order of `.env.example`. Frozen; secrets do not show in its text."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, validate_default=True)

    public_url: WebURL | None = _setting(
        "PUBLIC_URL",
        "Base URL that Twilio reaches; http:// only on loopback.",
        example="https://relay.example.com",
    )
    twilio_account_sid: AccountSid | None = _setting(
        "TWILIO_ACCOUNT_SID", "Twilio account.", example="AC0123456789abcdef0123456789abcdef"
    )
    twilio_auth_token: SecretStr | None = _setting(
        "TWILIO_AUTH_TOKEN", "Secret of the account, for REST and for signatures.", example="your-auth-token"
    )
    twilio_auth_token_previous: SecretStr | None = _setting(
        "TWILIO_AUTH_TOKEN_PREVIOUS",
        "Accepted in signatures too, while a token is rotated.",
        example="your-old-token",
    )
    twilio_from_number: PhoneNumber | None = _setting(
        "TWILIO_FROM_NUMBER", "Caller id in E.164.", example="+12025550100"
    )
    twilio_api_url: WebURL = _setting(
        "TWILIO_API_URL", "Base of the REST API; http:// only on loopback.", "https://api.twilio.com"
    )
    assemblyai_api_key: SecretStr | None = _setting(
        "ASSEMBLYAI_API_KEY", "Key of the Voice Agent account.", example="your-api-key"
    )
    assemblyai_ws_url: SocketURL = _setting(
        "ASSEMBLYAI_WS_URL",
        "Voice Agent socket; ws:// only on loopback.",
        "wss://agents.assemblyai.com/v1/ws",
    )
    system_prompt: str | None = _setting(
        "SYSTEM_PROMPT",
        "Replaces the default agent's prompt, never its disclosure.",
        example="You confirm appointments of a dentist.",
    )
    greeting: str | None = _setting(
        "GREETING", "Replaces the default agent's greeting, never its disclosure.", example="Good morning!"
    )
    agent_voice: str | None = _setting(
        "AGENT_VOICE", "The agent's voice; unset: the vendor's.", example="alba"
    )
    agent_keyterms: KeyTerms = _setting(
        "AGENT_KEYTERMS", "Words to listen for, with commas between.", (), example="Acme,SKU-12"
    )
    agent_voice_focus: Literal["near-field", "far-field"] | None = _setting(
        "AGENT_VOICE_FOCUS", "Noise suppression: near-field or far-field; unset: none.", example="near-field"
    )
    vad_threshold: float | None = _setting(
        "VAD_THRESHOLD", "Sensitivity to speech, 0 to 1; lower hears more.", example="0.5", ge=0, le=1
    )
    min_silence_ms: Milliseconds | None = _setting(
        "MIN_SILENCE_MS", "Silence after a finished sentence; switches off adaptive pacing.", example="1000"
    )
    max_silence_ms: Milliseconds | None = _setting(
        "MAX_SILENCE_MS", "Silence that ends any turn; switches off adaptive pacing.", example="3000"
    )
    interrupt_response: bool | None = _setting(
        "INTERRUPT_RESPONSE", "Whether the callee can interrupt the agent.", example="true"
    )
    interruption_delay_ms: Milliseconds | None = _setting(
        "INTERRUPTION_DELAY_MS", "Speech it takes to interrupt, 0 to 1000.", example="500", le=1000
    )
    barge_in: Literal["interrupted", "speech-started"] = _setting(
        "BARGE_IN", "Which event clears the phone: interrupted or speech-started.", "interrupted"
    )
    lead_silence_ms: Milliseconds = _setting(
        "RELAY_LEAD_SILENCE_MS", "Silence before the first audio, so that no word is clipped.", 250, le=2000
    )
    bind: Bind = _setting("RELAY_BIND", "Address and port to listen on.", "127.0.0.1:8080")
    proxy_networks: Networks = _setting(
        "RELAY_PROXY_NETWORKS",
        "Networks of balancers whose X-Forwarded-For is believed; unset: nobody's.",
        (),
        example="10.0.0.0/8",
    )
    url: ClientURL | None = _setting(
        "RELAY_URL",
        "Where client commands find the service; unset: RELAY_BIND.",
        example="http://127.0.0.1:8080",
    )
    api_token: TokenDigest | None = _setting(
        "RELAY_API_TOKEN",
        "Bearer token of /v1, or its digest as sha256:HEX for the service alone; unset: 401 to everyone.",
        example="a-long-random-word",
    )
    database_url: DatabaseURL = _setting(
        "RELAY_DATABASE_URL", "The ledger: sqlite:///… or postgresql+psycopg://….", "sqlite:///relay.db"
    )
    subject_key: SubjectKey | None = _setting(
        "RELAY_SUBJECT_KEY",
        "Keys the hashes of numbers, for ever, on all nodes; unset: made once in RELAY_DATA_DIR.",
        example="64-hexadecimal-digits-of-openssl-rand",
    )
    agents_dir: Path = _setting(
        "RELAY_AGENTS_DIR", "Folder of agent profiles, added to those in the package.", "agents"
    )
    tool_hosts: Hosts = _setting(
        "RELAY_TOOL_HOSTS",
        "Hosts that agents' HTTP tools may ask, with commas between.",
        (),
        example="crm.example.com",
    )
    tool_networks: Networks = _setting(
        "RELAY_TOOL_NETWORKS",
        "Private networks where those hosts may be; all others are refused.",
        (),
        example="10.1.0.0/16",
    )
    tool_secrets: dict[str, SecretStr] = _setting(
        TOOL_SECRETS,
        "What an HTTP tool sends or signs with; as many as are needed, each with a NAME of its own.",
        {},
        example="a-long-random-word",
    )
    rules_dir: Path | None = _setting(
        "RELAY_RULES_DIR",
        "Folder of rules of calling, added to those in the package; unset: none.",
        example="rules",
    )
    prices_file: Path | None = _setting(
        "RELAY_PRICES_FILE",
        "Your own prices, item by item in place of those in the package; unset: none.",
        example="prices.toml",
    )
    data_dir: Path = _setting("RELAY_DATA_DIR", "Everything written that is not the database.", "relay-data")
    capture_dir: Path | None = _setting(
        "RELAY_CAPTURE_DIR", "Redacted capture of both wires; unset: none.", example="captures"
    )
    traces_url: ClientURL | None = _setting(
        "RELAY_TRACES_URL",
        "Where each call's trace is sent (OTLP over HTTP); unset: none.",
        example="http://127.0.0.1:4318/v1/traces",
    )
    record_dir: Path | None = _setting(
        "RELAY_RECORD_DIR",
        "The relay's own stereo recordings of calls that are recorded; unset: none.",
        example="recordings",
    )
    max_call_seconds: int = _setting(
        "RELAY_MAX_CALL_SECONDS", "Hard cap of a call, here and at Twilio.", 600, ge=60, le=14400
    )
    max_calls: int = _setting("RELAY_MAX_CALLS", "Calls admitted at once.", 200, ge=1, le=10_000)
    ring_seconds: int = _setting("RELAY_RING_SECONDS", "How long the phone may ring.", 30, ge=5, le=600)
    dials_per_second: float = _setting("RELAY_DIALS_PER_SECOND", "Pace of dialling.", 1, gt=0, le=100)
    calls_per_hour: int = _setting("RELAY_CALLS_PER_HOUR", "Dials in any hour, on all nodes.", 1000, ge=1)
    drain_seconds: int = _setting(
        "RELAY_DRAIN_SECONDS", "How long SIGTERM lets live calls run.", 660, ge=0, le=86_400
    )
    keep_transcript_days: int = _setting("RELAY_KEEP_TRANSCRIPT_DAYS", "Days that speech is kept.", 30, ge=1)
    keep_audio_days: int = _setting("RELAY_KEEP_AUDIO_DAYS", "Days that own recordings are kept.", 30, ge=1)
    keep_evidence_days: int = _setting("RELAY_KEEP_EVIDENCE_DAYS", "Days that records are kept.", 2190, ge=1)
    clock: AwareDatetime | None = _setting(
        "RELAY_CLOCK",
        "Instant from which rules of date and hour count; only with TWILIO_API_URL on loopback.",
        example="2026-03-10T18:00:00Z",
    )
    log_format: Literal["json", "console"] | None = _setting(
        "RELAY_LOG_FORMAT", "json or console; unset: json when stdout is no terminal.", example="json"
    )
    log_level: LogLevels = _setting(
        "RELAY_LOG_LEVEL",
        "Least level written: debug, info, warning or error; then exceptions, as info,web=debug.",
        "info",
    )

    _given: tuple[str, ...] = PrivateAttr(())  # every name that load_settings was given

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """What two settings must not say together."""
        if self.clock is not None and not is_loopback(urlsplit(self.twilio_api_url).hostname):
            raise ValueError(
                "RELAY_CLOCK: would let real telephones ring at a forbidden hour. "
                "Unset it, or point TWILIO_API_URL at an emulator on loopback."
            )
        shortest, longest = self.min_silence_ms, self.max_silence_ms
        if shortest is not None and longest is not None and shortest > longest:
            raise ValueError("MIN_SILENCE_MS: is longer than MAX_SILENCE_MS. Lower it, or raise the other.")
        return self

    @property
    def client_url(self) -> str:
        """Where `relay call` and the other clients of /v1 find the service."""
        return self.url or f"http://{self.bind}"

    def require_serving(self) -> Accounts:
        """What serving needs, or a ConfigurationError that names everything that is missing."""
        missing = [
            f"{field.alias}: is not set. {field.description} {_remedy(field)}"
            for name, field in type(self).model_fields.items()
            if name in Accounts.__dataclass_fields__ and getattr(self, name) is None
        ]
        if missing:
            raise ConfigurationError(missing)
        return Accounts(**{name: getattr(self, name) for name in Accounts.__dataclass_fields__})

    def secrets(self) -> list[str]:
        """Every secret that is set, so that the log can leave it out wherever it turns up."""
        values = [getattr(self, name) for name in type(self).model_fields]
        found = [value for value in (*values, *self.tool_secrets.values()) if isinstance(value, SecretStr)]
        return [value.get_secret_value() for value in found]

    def warnings(self) -> list[str]:
        """What is allowed and probably not meant."""
        found = list(_misspelt(self._given))
        found += [
            f"{name} switches off the agent's adaptive pacing for the whole call."
            for name, value in (
                ("MIN_SILENCE_MS", self.min_silence_ms),
                ("MAX_SILENCE_MS", self.max_silence_ms),
            )
            if value is not None
        ]
        if self.api_token is None:
            found.append("RELAY_API_TOKEN is not set: /v1 answers 401 to everyone.")
        if "agents_dir" in self.model_fields_set and not self.agents_dir.is_dir():
            found.append("RELAY_AGENTS_DIR names no folder: there are the agents in the package alone.")
        if self.drain_seconds < self.max_call_seconds:
            found.append(
                "RELAY_DRAIN_SECONDS is shorter than RELAY_MAX_CALL_SECONDS: SIGTERM may cut calls short."
            )
        return found


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Settings from `env` alone, or from the environment and, behind it, `.env` in the working directory.

    A blank value counts as unset. Raises ConfigurationError with every problem found.
    """
    values: dict[str, object] = {
        name: stripped
        for name, value in (_read_environment() if env is None else env).items()
        if (stripped := value.strip())
    }
    secrets = {name: values.pop(name) for name in list(values) if name.startswith(TOOL_PREFIX)}
    values[TOOL_SECRETS] = secrets
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError([_problem(detail) for detail in error.errors(include_input=False)]) from None
    settings._given = tuple(values)
    return settings


def load_api_token() -> str:
    """The token itself, for commands that are clients of /v1.

    The service keeps no more of it than the digest that is in its settings. Raises ConfigurationError.
    """
    token = _read_environment().get("RELAY_API_TOKEN", "").strip()
    if not token:
        remedy = "Commands need the service's: set it in the environment that they are typed in, or in .env."
        raise ConfigurationError([f"RELAY_API_TOKEN: is not set. {remedy}"])
    if token.startswith(DIGEST_PREFIX):
        remedy = "Commands need the token itself: set it in the environment that they are typed in."
        raise ConfigurationError([f"RELAY_API_TOKEN: is a digest. {remedy}"])
    return token


def _read_environment() -> dict[str, str]:
    try:
        in_file = dotenv_values(ENV_FILE, interpolate=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            [f"{ENV_FILE}: cannot be read ({type(error).__name__}). Mend or remove it."]
        ) from None
    # A blank variable of the environment is unset, so it does not hide the file's.
    in_environment = {name: value for name, value in os.environ.items() if value.strip()}
    return {name: value for name, value in in_file.items() if value is not None} | in_environment


def _misspelt(names: Iterable[str]) -> Iterator[str]:
    """What is nearly a setting. Others are none of ours: a cluster has variables for each of its services."""
    known = [str(field.alias) for field in Settings.model_fields.values()]
    for name in names:
        if name not in known and (close := get_close_matches(name, known, n=1, cutoff=0.9)):
            yield f"{name} is no setting; did you mean {close[0]}?"


def _remedy(field: FieldInfo) -> str:
    return f"For example: {field.alias}={(field.examples or [''])[0]}"


def _problem(detail: ErrorDetails) -> str:
    """One line for one of pydantic's errors, without the value."""
    wrong = what_is_wrong(detail)
    if not detail["loc"]:  # two settings that disagree: the sentence names them itself
        return wrong
    variable = detail["loc"][0]
    field = next(field for field in Settings.model_fields.values() if field.alias == variable)
    return f"{variable}: {wrong}. {_remedy(field)}"
