"""X-Twilio-Signature as the carrier computes it.

Knows nothing of requests: only of addresses, fields and the secret that both ends share.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable


def sign(auth_token: str, url: str, form: Iterable[tuple[str, str]] = ()) -> str:
    """HMAC-SHA1 over the address and the sorted fields (repeated names: each distinct value once, sorted).

    For a stream's upgrade the address is `wss://host/path` without a query and there are no fields.
    """
    values: defaultdict[str, set[str]] = defaultdict(set)
    for name, value in form:
        values[name].add(value)
    text = url + "".join(name + value for name in sorted(values) for value in sorted(values[name]))
    return base64.b64encode(hmac.new(auth_token.encode(), text.encode(), hashlib.sha1).digest()).decode()
