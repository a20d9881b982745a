"""What requests are checked against.

Knows no framework; holds secrets and shows none.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Trust:
    """The configured public address and the secrets that signatures and tokens are made with."""

    public_url: str
    account_sid: str
    auth_tokens: tuple[str, ...] = field(repr=False)  # the current one first, the previous one while rotating
    api_token: str | None = field(repr=False)
