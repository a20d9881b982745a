"""The shape of what the operator's API answers when it says no.

Knows Quart's responses and nothing of what went wrong.
"""

from __future__ import annotations

from quart import jsonify
from quart.typing import ResponseReturnValue


def error(status: int, code: str, message: str, **headers: str) -> ResponseReturnValue:
    """The contract's shape of every error under /v1."""
    answer = jsonify({"error": {"code": code, "message": message}})
    answer.status_code = status
    answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return answer
