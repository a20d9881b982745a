"""What the values of settings must look like: each shape refuses with words that repeat no value.

Knows no setting by name and reads nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails

DIGEST_PREFIX: Final = "sha256:"
SHORTEST_KEY: Final = 32  # characters: a hash of a number is undone by whoever guesses the key

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
REGION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")
_ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")
_HOST = re.compile(r"[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?")
_IPV4_LOOPBACK: Final = ip_network("127.0.0.0/8")


def is_loopback(host: str | None) -> bool:
    """Whether nothing sent to `host` leaves this machine: localhost, 127.0.0.0/8, ::1."""
    if host is None:
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address in _IPV4_LOOPBACK if address.version == 4 else address.is_loopback


def what_is_wrong(problem: ErrorDetails) -> str:
    """One of pydantic's errors in a person's words, without the place and without the value."""
    return problem["msg"].removeprefix("Value error, ").replace("Input should ", "must ")


def all_that_is_wrong(error: ValidationError, whole: str = "") -> list[str]:
    """Each of its errors behind its place; `whole` is what that is called where no part of it is at fault."""
    return [
        f"{'.'.join(map(str, each['loc'])) or whole}: {what_is_wrong(each)}"
        for each in error.errors(include_input=False)
    ]


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # reading it checks that it is a number
    except ValueError:
        raise ValueError("is not a URL") from None
    if not parts.hostname or any(character.isspace() for character in text):
        raise ValueError("must be a URL with a host and without spaces")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be scheme, host, port and path alone, without user, query or fragment")
    return parts


def _guarded_url(scheme: str) -> Callable[[str], str]:
    """Accepts `scheme`://, and its cleartext form on loopback; drops trailing slashes."""
    cleartext = scheme.removesuffix("s")

    def check(text: str) -> str:
        parts = _split(text)
        if parts.scheme != scheme and not (parts.scheme == cleartext and is_loopback(parts.hostname)):
            raise ValueError(f"must begin with {scheme}:// ({cleartext}:// only with a loopback host)")
        return text.rstrip("/")

    return check


def _client_url(text: str) -> str:
    if _split(text).scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    return text.rstrip("/")


def _shape(pattern: re.Pattern[str], wanted: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {wanted}")
        return text

    return check


def _bind(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("must be an address and a port")
    return text


def _database_url(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().startswith(("sqlite:///", "postgresql+psycopg://")):
        raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")
    return secret


def _key_terms(terms: tuple[str, ...]) -> tuple[str, ...]:
    if len(terms) > 100 or any(len(term) > 50 for term in terms):
        raise ValueError("may hold 100 terms of 50 characters each")  # AssemblyAI's limits
    return terms


def _token_digest(token: SecretStr) -> SecretStr:
    """What is kept of the API's token: its SHA-256, whether given plain or as `sha256:` and that digest."""
    text = token.get_secret_value()
    if not text.startswith(DIGEST_PREFIX):
        return SecretStr(DIGEST_PREFIX + hashlib.sha256(text.encode()).hexdigest())
    if not re.fullmatch(r"[0-9a-f]{64}", text.removeprefix(DIGEST_PREFIX)):
        raise ValueError("must be the token, or sha256: and 64 hexadecimal digits; `sha256sum` makes them")
    return token


def _subject_key(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < SHORTEST_KEY:
        raise ValueError(f"must have {SHORTEST_KEY} characters or more; `openssl rand -hex 32` makes one")
    return key


def _hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if any(not _HOST.fullmatch(host) for host in hosts):
        raise ValueError("must be names of hosts, without scheme, port and path")
    return tuple(host.lower() for host in hosts)


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ip_network(network)) for network in networks)
    except ValueError:
        raise ValueError("must be networks, as 10.1.0.0/16") from None


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return tuple(term for part in value.split(",") if (term := part.strip()))
    return value


WebURL = Annotated[str, AfterValidator(_guarded_url("https"))]
ClientURL = Annotated[str, AfterValidator(_client_url)]
SocketURL = Annotated[str, AfterValidator(_guarded_url("wss"))]
PhoneNumber = Annotated[
    str,
    AfterValidator(_shape(E164, "E.164: a plus sign, country code and number, as +12025550143")),
    Field(json_schema_extra={"pattern": f"^{E164.pattern}$"}),
]
Region = Annotated[
    str,
    AfterValidator(_shape(REGION, "an ISO 3166-2 code, as US-TX")),
    Field(json_schema_extra={"pattern": f"^{REGION.pattern}$"}),
]
AccountSid = Annotated[str, AfterValidator(_shape(_ACCOUNT_SID, "AC and 32 hexadecimal digits"))]
Bind = Annotated[str, AfterValidator(_bind)]
DatabaseURL = Annotated[SecretStr, AfterValidator(_database_url)]
TokenDigest = Annotated[SecretStr, AfterValidator(_token_digest)]
SubjectKey = Annotated[SecretStr, AfterValidator(_subject_key)]
KeyTerms = Annotated[tuple[str, ...], BeforeValidator(_comma_separated), AfterValidator(_key_terms)]
Milliseconds = Annotated[int, Field(ge=0)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_comma_separated), AfterValidator(_hosts)]
Networks = Annotated[tuple[str, ...], BeforeValidator(_comma_separated), AfterValidator(_networks)]
