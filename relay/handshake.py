"""How a leg comes about: the carrier's socket is taken over, the agent's is dialled.

Knows the opening handshake; what a leg does afterwards is its own business.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import trio
from websockets.exceptions import InvalidStatus
from websockets.protocol import State
from websockets.uri import WebSocketURI, parse_uri

from relay.framing import ClientFraming, ServerFraming
from relay.legs import Leg
from relay.listening import Listening
from relay.outcomes import Blame, LegClosed, Reason
from relay.streams import RECEIVE_BYTES, SocketStream, TLSStream, open_tcp, open_tls

PHONE_MESSAGE_BYTES = 64 * 1024  # Twilio's frames are below 1 KiB
AGENT_MESSAGE_BYTES = 1024 * 1024  # session.ready echoes the whole prompt


class HandshakeRefused(Exception):
    """The far end answered the upgrade with an HTTP status other than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the upgrade was answered with HTTP {status}")
        self.status = status


def accept_phone_leg(stream: trio.abc.Stream, listening: Listening | None = None) -> Leg:
    """The carrier's stream, whose upgrade was already answered."""
    return Leg(Blame.CARRIER, stream, ServerFraming(PHONE_MESSAGE_BYTES), listening=listening)


async def open_agent_leg(
    url: str, *, headers: Mapping[str, str], tls: ssl.SSLContext, listening: Listening | None = None
) -> Leg:
    """Dial the agent. The caller holds the deadline; a cancelled or failed dial leaves no socket.

    Raises HandshakeRefused for an HTTP answer other than 101, LegClosed (UNREACHABLE) for everything else.
    """
    address = parse_uri(url)
    try:
        stream: SocketStream | TLSStream = (
            await open_tls(address.host, address.port, tls)
            if address.secure
            else await open_tcp(address.host, address.port)
        )
    except (OSError, trio.BrokenResourceError) as problem:
        raise LegClosed(Blame.AGENT, Reason.UNREACHABLE, f"{problem.__cause__ or problem}") from problem
    return await join_agent_leg(stream, url, headers=headers, listening=listening)


async def join_agent_leg(
    stream: trio.abc.Stream, url: str, *, headers: Mapping[str, str], listening: Listening | None = None
) -> Leg:
    """The agent's leg over a stream that leads there. The same as `open_agent_leg` from there on."""
    try:
        return await shake_hands(stream, parse_uri(url), headers, listening)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def shake_hands(
    stream: trio.abc.Stream,
    address: WebSocketURI,
    headers: Mapping[str, str],
    listening: Listening | None = None,
) -> Leg:
    """Ask for the upgrade and read the answer. A stream that is not taken on is left to the caller."""
    framing = ClientFraming(address, max_size=AGENT_MESSAGE_BYTES)
    request = framing.connect()
    for name, value in headers.items():
        request.headers[name] = value
    framing.send_request(request)
    try:
        await stream.send_all(b"".join(framing.data_to_send()))
        while framing.state is State.CONNECTING and framing.handshake_exc is None:
            chunk = await stream.receive_some(RECEIVE_BYTES)
            if chunk:
                framing.receive_data(chunk)
            else:
                framing.receive_eof()
    except trio.BrokenResourceError as problem:
        raise LegClosed(Blame.AGENT, Reason.UNREACHABLE, f"{problem.__cause__ or problem!r}") from problem
    match framing.handshake_exc:
        case None:
            leg = Leg(Blame.AGENT, stream, framing, listening=listening)
            leg.digest()  # frames that came in one piece with the answer
            return leg
        case InvalidStatus() as refused:
            raise HandshakeRefused(refused.response.status_code)
        case failure:
            raise LegClosed(Blame.AGENT, Reason.UNREACHABLE, f"bad handshake: {failure!r}")
