"""The carrier's recordings of one call: begun with the call or by REST, reported once the call is over.

Knows no sound and no socket: what is recorded is how long, and who is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from relay.simulator.http import Form
from relay.simulator.rest import API_VERSION, ApiError, resource_uri, rfc2822

_PARAMETERS = frozenset(
    """RecordingChannels RecordingTrack Trim RecordingStatusCallback RecordingStatusCallbackMethod
    RecordingStatusCallbackEvent""".split()  # noqa: SIM905 - reads as a list
)
LAG_SECONDS = 0.5  # for so long after the answer REST still says that the call is not in progress


class CarrierRecording:
    """One recording. `begun_at` and the end of the call are times of day in seconds since 1970."""

    def __init__(self, sid: str, form: Form, begun_at: float, source: str) -> None:
        fields = dict(form)
        self.sid = sid
        self.begun_at = begun_at
        self.channels = 2 if fields.get("RecordingChannels") == "dual" else 1
        self.callback = fields.get("RecordingStatusCallback")
        self._source = source

    def resource(self, account_sid: str, call_sid: str) -> dict[str, Any]:
        """As the interface shows it while it goes on."""
        return {
            "sid": self.sid,
            "account_sid": account_sid,
            "call_sid": call_sid,
            "api_version": API_VERSION,
            "status": "in-progress",
            "channels": self.channels,
            "source": self._source,
            "duration": None,
            "price": None,
            "date_created": rfc2822(self.begun_at),
            "date_updated": rfc2822(self.begun_at),
            "start_time": rfc2822(self.begun_at),
            "uri": resource_uri(account_sid, f"/Calls/{call_sid}/Recordings/{self.sid}"),
        }

    def report(self, account_sid: str, call_sid: str, ended_at: float) -> Form:
        """What its callback says when it is complete."""
        return [
            ("AccountSid", account_sid),
            ("CallSid", call_sid),
            ("RecordingSid", self.sid),
            (
                "RecordingUrl",
                f"https://api.twilio.com/{API_VERSION}/Accounts/{account_sid}/Recordings/{self.sid}",
            ),
            ("RecordingStatus", "completed"),
            ("RecordingDuration", str(round(ended_at - self.begun_at))),
            ("RecordingChannels", str(self.channels)),
            ("RecordingStartTime", rfc2822(self.begun_at)),
            ("RecordingSource", self._source),
            ("RecordingTrack", "both"),
        ]


class _Network(Protocol):
    @property
    def account_sid(self) -> str: ...
    @property
    def wall(self) -> Callable[[], float]: ...
    def new_sid(self, prefix: str) -> str: ...


class CarrierRecordings:
    """The recordings of one call. `note`, `violate` and `post` are the call's."""

    def __init__(
        self,
        network: _Network,
        call_sid: str,
        note: Callable[[str, Mapping[str, Any]], None],
        violate: Callable[[str], None],
        post: Callable[[str, str, Form], None],
    ) -> None:
        self.begun: list[CarrierRecording] = []
        self._network, self._call_sid = network, call_sid
        self._note, self._violate, self._post = note, violate, post

    def answered(self, ordered: Form | None) -> None:
        """The call is answered: what was ordered with it begins."""
        if ordered is not None:
            self._begin(ordered, "OutboundAPI")

    def order(self, form: Form, status: str, answered_at: float | None) -> dict[str, Any]:
        """A recording that is ordered by REST. Raises ApiError where the carrier refuses."""
        for name in sorted({name for name, _ in form} - _PARAMETERS):
            self._violate(f"the recording has an unknown parameter {name}")
        if status != "in-progress" or answered_at is None or self._network.wall() < answered_at + LAG_SECONDS:
            raise ApiError(400, 21220, "Requested resource is not eligible for recording")
        if dict(form).get("RecordingChannels") not in (None, "mono", "dual"):
            raise ApiError(400, 20422, "RecordingChannels is neither mono nor dual")
        return self._begin(form, "StartCallRecordingAPI").resource(self._network.account_sid, self._call_sid)

    def _begin(self, form: Form, source: str) -> CarrierRecording:
        recording = CarrierRecording(self._network.new_sid("RE"), form, self._network.wall(), source)
        self.begun.append(recording)
        told = {"sid": recording.sid, "source": source, "channels": recording.channels}
        self._note("recording", told)
        return recording

    def ended(self, at: float) -> None:
        """The call is over: whoever wants to hear of its recordings is told."""
        for each in self.begun:
            if each.callback is not None:
                form = each.report(self._network.account_sid, self._call_sid, at)
                self._post("recording-callback", each.callback, form)
