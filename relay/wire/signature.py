"""What proves that a request comes from Twilio: its signature, and the token of the media stream.

Knows no trio, no clock, no socket and no log, and not where the secrets come from or which token was spent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, urlsplit

from relay.outcomes import WireError

MAX_FORM_FIELDS = 200  # Twilio's largest form has about forty; more is not from Twilio
_MAX_ATTEMPT_DIGITS = 3  # an attempt is a count of documents fetched for one call
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN_PURPOSE = b"relay stream token v1"

Form = Sequence[tuple[str, str]]  # fields in the order they came; a name may repeat, a value may be blank


def parse_form(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form body or of a query; blank values are kept, for Twilio signs them."""
    try:
        return parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError as error:
        raise WireError(f"a form of more than {MAX_FORM_FIELDS} fields") from error


def sign(auth_token: str, url: str, params: Iterable[tuple[str, str]] = ()) -> str:
    """`X-Twilio-Signature` of a request: base64 of HMAC-SHA1, as Twilio's webhook security page says.

    Covers the URL with its query, then each name and value without separators, by name; a name that
    repeats contributes its distinct values in order. Upgrades and GET requests have no params.
    """
    signed = url + "".join(name + value for name, value in sorted(set(params)))
    return base64.b64encode(hmac.digest(_bytes(auth_token), _bytes(signed), hashlib.sha1)).decode("ascii")


def check_signature(
    auth_tokens: Sequence[str], urls: Sequence[str], params: Form, signature: str | None
) -> str | None:
    """The one of `urls` that was signed with one of `auth_tokens`, or None: then the request is not Twilio's.

    Every pair is computed, so the time tells nothing. A blank token signs nothing.
    """
    given = _bytes(signature or "")
    matches = [
        url
        for url in urls
        for auth_token in auth_tokens
        if auth_token and hmac.compare_digest(_bytes(sign(auth_token, url, params)), given)
    ]
    return matches[0] if matches else None


def webhook_urls(public_url: str, target: str) -> list[str]:
    """The forms in which Twilio may have signed a webhook: with and without the default port.

    `target` is the path of the route with its query as it came; never take the host from a header.
    """
    scheme, hosts, path = _split(public_url)
    return [f"{scheme}://{host}{path}{target}" for host in hosts]


def upgrade_urls(public_url: str, path: str) -> list[str]:
    """The forms in which Twilio may have signed the upgrade of the media stream, the likeliest first.

    Which of them it uses is documented nowhere, hence {wss, https} x {with, without default port} x
    {with, without trailing slash}; ws and http in their place for an http (that is, loopback) public URL.
    """
    scheme, hosts, prefix = _split(public_url)
    bare = f"{prefix}{path}".rstrip("/")
    socket_scheme = scheme.replace("http", "ws")
    return [
        f"{s}://{host}{bare}{slash}" for s in (socket_scheme, scheme) for slash in ("", "/") for host in hosts
    ]


def stream_token(auth_token: str, call_id: str, attempt: int) -> str:
    """The token of one media stream, `<call id>.<attempt>.<mac>`: the same for every fetch of one document.

    Its key is derived from the auth token, so that a token leaked from a TwiML document cannot be used
    against the signatures; that it is spent once is for the caller to remember.
    """
    key = hmac.digest(_bytes(auth_token), _TOKEN_PURPOSE, hashlib.sha256)
    claim = f"{call_id}.{attempt}"
    mac = (
        base64.urlsafe_b64encode(hmac.digest(key, _bytes(claim), hashlib.sha256)).decode("ascii").rstrip("=")
    )
    return f"{claim}.{mac}"


def read_stream_token(auth_tokens: Sequence[str], text: str) -> tuple[str, int] | None:
    """The call id and the attempt that a genuine token names; None for anything else."""
    parts = text.rsplit(".", 2)
    if len(parts) != 3:
        return None
    call_id, digits, _mac = parts
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_ATTEMPT_DIGITS):
        return None
    attempt = int(digits)
    given = _bytes(text)
    genuine = [
        hmac.compare_digest(_bytes(stream_token(auth_token, call_id, attempt)), given)
        for auth_token in auth_tokens
        if auth_token
    ]
    return (call_id, attempt) if any(genuine) else None


def _split(public_url: str) -> tuple[str, list[str], str]:
    """Scheme, the spellings of host and port, and the path in front of our routes."""
    parts = urlsplit(public_url)
    default_port = _DEFAULT_PORTS[parts.scheme]
    host = parts.netloc
    if parts.port not in (None, default_port):
        return parts.scheme, [host], parts.path.rstrip("/")
    host = host.removesuffix(f":{default_port}")
    return parts.scheme, [host, f"{host}:{default_port}"], parts.path.rstrip("/")


def _bytes(text: str) -> bytes:
    """Any text a stranger can send, lone surrogates included, without raising."""
    return text.encode("utf-8", "surrogatepass")
