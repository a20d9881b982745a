"""What may not be told: speech, telephone numbers and secrets, taken out of anything about to be written.

Knows keys and shapes alone: no log, no file, no protocol.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

REDACTED: Final = "[redacted]"

# What people say, what they are asked, and what opens doors. Matched against the key in lower case.
_SPEECH = ["text", "transcript", "delta", "prompt", "system_prompt", "instructions", "greeting", "keyterms"]
_CONTENT = ["arguments", "result", "output", "variables", "body", "form", "payload", "audio"]
_KEYS = ["authorization", "signature", "secret", "password", "token", "auth_token", "api_token", "api_key"]
HIDDEN_KEYS: Final = frozenset(_SPEECH + _CONTENT + _KEYS)
NUMBER_KEYS: Final = frozenset(
    ["to", "from", "from_", "from_number", "to_number", "phone", "number", "caller"]
)

# What a client sends in Authorization, whoever it is: of our own token only the digest is known here.
_BEARER: Final = re.compile(r"(?i)\b(bearer\s+)[^\s\"',;]+")
# E.164 wherever it stands, in an exception's message or a URL too. Nothing else that we write looks like it.
_E164: Final = re.compile(r"(?:\+|%2[Bb])[1-9][0-9]{6,14}")


def mask_number(number: str) -> str:
    """A telephone number of which only the last two digits remain: enough to tell two calls apart."""
    return "*" + number[-2:] if len(number) > 4 else "*"


class Redactor:
    """Takes speech, numbers and the given secrets out of structures of plain values.

    `secrets` are the literal values to look for in every string, whatever its key.
    """

    def __init__(self, secrets: Collection[str] = ()) -> None:
        # The longest first, so that a secret within a secret leaves nothing behind.
        shapes = [re.escape(secret) for secret in sorted(filter(None, secrets), key=len, reverse=True)]
        self._secrets = re.compile("|".join(shapes)) if shapes else None

    def mapping(self, values: Mapping[str, object]) -> dict[str, object]:
        """A copy of `values` that may be written down."""
        return {key: self._entry(key, value) for key, value in values.items()}

    def _entry(self, key: object, value: object) -> object:
        name = str(key).lower()
        if value is None or isinstance(value, bool):
            return value
        if name in HIDDEN_KEYS:
            return REDACTED
        if name in NUMBER_KEYS:
            return mask_number(str(value))
        return self._value(value)

    def _value(self, value: object) -> object:
        match value:
            case str():
                return self._string(value)
            case Mapping():
                return {key: self._entry(key, entry) for key, entry in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._value(entry) for entry in value]
            case None | bool() | int() | float():
                return value
            case _:
                return self._string(str(value))

    def _string(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(REDACTED, text)
        text = _BEARER.sub(rf"\1{REDACTED}", text)
        return _E164.sub(lambda found: mask_number(found[0]), text)
