"""Twilio's error codes as sentences: what is wrong, and what to do about it.

Knows no trio, no clock, no socket and no log, and not what a code does to a call.
"""

# ruff: noqa: E501 - a line for each code keeps the tables readable

from __future__ import annotations

_DEFECT = "this is a defect of relay, please report it."
_OTHER = "check what answers at PUBLIC_URL in place of relay."

_PLACING = {
    20003: "Twilio did not accept the credentials; check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, that the account is not suspended, and that TWILIO_API_URL is of the region that the token belongs to.",
    20005: "The Twilio account is not active; reactivate it in the console.",
    20006: "The credentials lack the permission for this; use the account's own SID and auth token.",
    20008: "These are Twilio test credentials, which cannot place calls; use the live ones.",
    20010: "This action is disabled for the Twilio account; ask Twilio support to enable it.",
    20404: "Twilio does not know this account, call or number; check TWILIO_ACCOUNT_SID and TWILIO_API_URL.",
    20409: "The request is in conflict with the state of the call; look at the call's status before trying again.",
    20422: "A parameter of the request is not valid; compare the call's request with the message of Twilio.",
    20429: "Too many requests to Twilio at once; lower RELAY_DIALS_PER_SECOND and try again.",
    20500: "Twilio failed on its side and the call may have been placed; look it up before trying again.",
    20503: "Twilio is overloaded and the call may have been placed; look it up before trying again.",
    10001: "The Twilio account is not active; reactivate it in the console.",
    10002: "Trial accounts may not do this; upgrade the Twilio account.",
    10004: "Too many calls at once for this Twilio account; place fewer, or have the business profile approved.",
    21201: "No number to call was given; set `to`.",
    21202: "The number is a premium-rate number, which Twilio does not call; choose another number.",
    21203: "International calling is disabled for the Twilio account; enable it in the console.",
    21205: "Twilio cannot use the address of the call's document; PUBLIC_URL must be an absolute, public https URL.",
    21206: "The digits to send are malformed; only 0-9, A-D, #, * and w are allowed, 32 at most.",
    21208: "The time to let it ring is out of range; set RELAY_RING_SECONDS to 600 at most.",
    21209: f"The HTTP method of a callback is not valid; {_DEFECT}",
    21210: "The caller id is no number of this Twilio account and is not verified; set TWILIO_FROM_NUMBER to one that was bought, or verify it under Verified Caller IDs in the console.",
    21211: "The number to call is not valid; give it as +, country code and number, and not the caller id itself.",
    21212: "The caller id is malformed or may not originate calls; set TWILIO_FROM_NUMBER to another number.",
    21213: "No caller id was given; set TWILIO_FROM_NUMBER.",
    21214: "Twilio cannot reach this number; check it, or call another number of the same person.",
    21215: "Calls to this country are not enabled; tick it in the console under Voice Geographic Permissions.",
    21216: "Twilio blocks this destination against fraud; choose another number or ask Twilio support to allow it.",
    21217: "The number to call does not look like a phone number; give it as +, country code and number.",
    21218: "The application SID is not valid; this is a defect of relay, which sends none, please report it.",
    21219: "A trial account calls verified numbers only; verify this number under Verified Caller IDs in the console, or upgrade the account.",
    21220: "The call is not in progress, so it cannot be changed; when it has ended there is nothing left to do.",
    21234: "The machine detection's settings are not valid; call with machine detection off or another kind.",
    21262: f"The verdict of the machine detection has nowhere to go; {_DEFECT}",
    21263: "Machine detection is not possible for this call; call with machine detection off.",
    21408: "The account may not send messages to this country; relay sends none, so look for what else uses it.",
    21606: "The sender may not send messages; relay sends none, so look for what else uses the account.",
    21608: "A trial account may not send messages to this number; relay sends none, so look for what else uses it.",
    21609: "Twilio cannot use the status callback; PUBLIC_URL must have a public host name without underscores.",
    21626: f"Twilio did not understand the status events, so nothing will be reported; {_DEFECT}",
    22001: "The call waited too long in Twilio's queue; place fewer calls, or ask Twilio for more calls per second.",
    22005: "Twilio's queue for this account is full; place fewer calls, or ask Twilio for more calls per second.",
    32018: f"The inline document is longer than Twilio allows; {_DEFECT}",
    32019: f"Both an address and an inline document were given; {_DEFECT}",
}

_DOCUMENT = {
    11100: "The address of a document is not valid; PUBLIC_URL must be an absolute, public https URL.",
    11200: "Twilio did not get the call's document or a callback was refused; check that relay runs, that PUBLIC_URL leads to it, and that TWILIO_AUTH_TOKEN is current (a wrong one answers 403).",
    11201: "The connection ended before Twilio got an answer; check the tunnel or balancer behind PUBLIC_URL.",
    11202: "The connection was refused; check that relay runs and that PUBLIC_URL leads to its port.",
    11203: "The answer came too late; check the load of this machine and the tunnel behind PUBLIC_URL.",
    11205: "Twilio could not connect to PUBLIC_URL within its 15 s; check firewall, tunnel and balancer.",
    11206: f"The answer was not valid HTTP; {_OTHER}",
    11210: "The host of PUBLIC_URL is not known to DNS; check its spelling, or wait until the record is published.",
    11215: "PUBLIC_URL redirects too often; set it to the final address.",
    11220: "The TLS handshake with PUBLIC_URL failed; renew or complete its certificate chain.",
    11235: "The certificate of PUBLIC_URL is not valid for it; install one for this host name.",
    11236: "The certificate of PUBLIC_URL cannot be checked; install one of a public authority, chain included.",
    11237: "The certificate chain of PUBLIC_URL is incomplete or not public; install the full chain.",
    12100: f"The call's document is no valid XML; {_OTHER}",
    12102: f"The call's document has another root than Response; {_OTHER}",
    12200: f"The call's document holds what Twilio does not know; {_DEFECT}",
    12300: "The call's document came with a wrong content type; check what rewrites the answers of PUBLIC_URL.",
    15003: f"A callback was answered with an unexpected body; {_OTHER}",
    15004: f"An address in an updated document is not absolute; {_DEFECT}",
}

_STREAM = {
    31900: "The media stream failed for a reason that Twilio does not know; try again, then ask Twilio support.",
    31901: "The media stream's connection timed out; check that PUBLIC_URL passes WebSockets and answers fast.",
    31902: "The media stream's connection was refused; check that relay runs and that PUBLIC_URL leads to its port.",
    31903: "The media stream's socket died in the middle; check what stands between Twilio and relay.",
    31904: "The media stream's host cannot be reached; PUBLIC_URL needs a public address and a DNS record.",
    31910: "TLS of the media stream failed; PUBLIC_URL needs a public certificate and an HTTP (not TCP) tunnel.",
    31920: "The upgrade to the media stream was not accepted; check that PUBLIC_URL is exactly what Twilio calls, that TWILIO_AUTH_TOKEN is current, and that the proxy passes WebSockets.",
    31921: "The media stream was closed with a close code from our side; look at the call's ending for the cause.",
    31922: "The media stream's address is not wss; set PUBLIC_URL to an https address.",
    31923: "The media stream's address is malformed; check PUBLIC_URL.",
    31924: "The WebSocket protocol of the media stream was violated; check the proxy in front of relay, some break WebSockets, and try another one.",
    31930: f"More audio was sent than the media stream takes; {_DEFECT}",
    31931: "More than ten minutes of audio were queued and some was discarded; make the agent's replies shorter.",
    31940: "The stream connector is not known; relay uses none, so check what rewrites the call's document.",
    31941: f"The track of the media stream is not valid; {_DEFECT}",
    31942: "The stream connector failed; relay uses none, so check what rewrites the call's document.",
    31950: f"A message on the media stream was binary or unreadable; {_DEFECT}",
    31951: f"A message on the media stream was not as Twilio expects; {_DEFECT}",
}

_CONDUCT = {
    13214: "The caller id of the transfer is not valid; use a number of this Twilio account.",
    13223: "The number of the transfer is malformed; give it as +, country code and number.",
    13224: "The number of the transfer is not valid; give it as +, country code and number.",
    13225: "The number of the transfer is blocked by Twilio; choose another one.",
    13227: "The country of the transfer is not enabled; tick it in the console under Voice Geographic Permissions.",
    13247: "The caller id of the transfer may not originate calls; use another number of this account.",
    13805: "The call reached the longest duration the account allows (trial accounts 10 minutes); upgrade the account, or lower RELAY_MAX_CALL_SECONDS so that the agent can say goodbye in time.",
    32014: "The carrier got no audio; if it repeats, ask Twilio support with the call's SID.",
    32015: "The call reached the longest duration the account allows; raise it in the console or make calls shorter.",
    32016: "It took too long until it rang; try again, and ask Twilio support if it repeats for this destination.",
    32017: "A carrier blocked the caller id; register the number (CNAM, SHAKEN) or use another one.",
    32021: "The caller id's STIR/SHAKEN attestation was not accepted; register the number in the Twilio Trust Hub.",
}

_SENTENCES = _PLACING | _DOCUMENT | _STREAM | _CONDUCT

_FAMILIES = (
    (
        range(11200, 11300),
        "Twilio could not fetch from PUBLIC_URL; check that it is public and leads to relay.",
    ),
    (range(12100, 12400), "Twilio could not use the call's document; check what answers at PUBLIC_URL."),
    (range(13000, 14000), "A verb of the call's document failed; check the numbers that it names."),
    (range(31900, 32000), "The media stream failed; check that PUBLIC_URL passes WebSockets to relay."),
)


def explain(code: int | None, fallback: str = "") -> str:
    """One sentence for a Twilio error code: what is wrong and what to do.

    `fallback` is Twilio's own message: for a code that is not in the tables, or where there is no code at all.
    """
    if code is None:
        return fallback or "Twilio gave no reason; look at the call in the console's error log."
    if code in _SENTENCES:
        return _SENTENCES[code]
    known = next((sentence for family, sentence in _FAMILIES if code in family), "")
    what = known or fallback or "Twilio reported an error."
    return f"{what} (Twilio error {code}, see https://www.twilio.com/docs/api/errors/{code})"
