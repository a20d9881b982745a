"""What Twilio says of the account, the caller id, the countries, and the time.

Knows the questions of its REST interface; places no call.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from phonenumbers import parse, region_code_for_number

from relay.carrier import CallerId, Unavailable
from relay.check.findings import FAIL, OK, WARN, Answer
from relay.check.http import open_http
from relay.dialer import TWILIO_API_URL
from relay.service import carrier_desk
from relay.settings import Settings
from relay.wire.carrier_errors import explain

VOICE_URL = "https://voice.twilio.com"
COUNTRY = "Tick the country in the Twilio console under Voice Geographic Permissions."
CLOCK_SKEW_SECONDS = 5.0  # more than a slow answer explains


async def ask_account(settings: Settings) -> Answer:
    """Whether the credentials are those of an account that can dial."""
    async with carrier_desk(settings) as dialer:
        account = await dialer.account()
    if isinstance(account, Unavailable):
        return FAIL, *_sentence(account.sentence)
    if account.status != "active":
        return FAIL, f"the account is {account.status}", "Reactivate it in the Twilio console."
    if account.is_trial:
        found = "a trial account: it calls verified numbers only, ten minutes long, after a notice"
        return WARN, found, "Verify the numbers you will call under Verified Caller IDs, or upgrade."
    return OK, "active", ""


async def ask_caller_id(settings: Settings) -> Answer:
    """Whether the account may show TWILIO_FROM_NUMBER."""
    async with carrier_desk(settings) as dialer:
        caller_id = await dialer.caller_id()
    match caller_id:
        case Unavailable():
            return FAIL, *_sentence(caller_id.sentence)
        case CallerId.OWNED:
            return OK, "a number of the account that can make calls", ""
        case CallerId.VERIFIED:
            return OK, "a verified caller id", ""
        case CallerId.WITHOUT_VOICE:
            return FAIL, "a number without voice", "Set TWILIO_FROM_NUMBER to one that can make calls."
        case CallerId.UNKNOWN:
            return FAIL, *_sentence(explain(21210))


async def ask_country(settings: Settings) -> Answer:
    """Whether the account may call the country that its caller id is of: Voice Geographic Permissions."""
    accounts = settings.require_serving()
    country = region_code_for_number(parse(accounts.twilio_from_number)) or "US"
    # Another host of Twilio's; whoever stands in for the REST API answers for this one too.
    base = VOICE_URL if settings.twilio_api_url == TWILIO_API_URL else settings.twilio_api_url
    key = accounts.twilio_account_sid, accounts.twilio_auth_token.get_secret_value()
    try:
        async with open_http() as http:
            answer = await http.get(f"{base}/v1/DialingPermissions/Countries/{country}", auth=key)
        is_allowed = answer.json()["low_risk_numbers_enabled"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as problem:
        remedy = f"See in the Twilio console under Voice Geographic Permissions whether {country} is ticked."
        return WARN, f"calls to {country}: not told ({type(problem).__name__})", remedy
    if is_allowed:
        return OK, f"calls to {country}, the caller id's own country, are enabled", ""
    return FAIL, f"calls to {country}, the caller id's own country, are not enabled", COUNTRY


async def ask_clock(settings: Settings) -> Answer:
    """Whether our clock agrees with the carrier's: by ours a call is looked up that nobody answered for."""
    try:
        async with open_http() as http:
            answer = await http.get(settings.twilio_api_url)
    except httpx.HTTPError as problem:
        return WARN, f"Twilio's clock could not be asked ({problem})", "Mend the way to Twilio first."
    return judge_clock(answer.headers.get("Date", ""), datetime.now(UTC))


def judge_clock(date: str, now: datetime) -> Answer:
    """Hold our clock against a Date header, which is cut to whole seconds."""
    try:
        ahead_seconds = (now - parsedate_to_datetime(date)).total_seconds() - 0.5
    except (ValueError, TypeError):  # the latter for a date without a zone
        return WARN, "Twilio's answer bears no date to compare with", "Compare this clock with another one."
    if abs(ahead_seconds) <= CLOCK_SKEW_SECONDS:
        return OK, f"within {CLOCK_SKEW_SECONDS:g} s of Twilio's", ""
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return FAIL, f"{abs(ahead_seconds):.0f} s {direction} Twilio's", "Have this machine's clock set by NTP."


def _sentence(sentence: str) -> tuple[str, str]:
    """What is wrong and what to do, of one of the carrier's sentences."""
    found, _, remedy = sentence.rstrip(".").partition("; ")
    return found, f"{remedy[:1].upper()}{remedy[1:]}." if remedy else "Try again; ask Twilio if it stays so."
