"""The evidence of one call: all that is on record of it in one archive, and whether that is whole.

Knows Quart and the ledger; what the entries mean is for whoever reads them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import orjson
import trio
from quart import Blueprint, Response, jsonify
from quart.typing import ResponseReturnValue
from quart_schema import security_scheme

from relay.line import DISCLOSED
from relay.placing import SCRIPT
from relay.reception import OPENING_HEARD
from relay.store import CallRecord, Store
from relay.store.chain import SealedEntry, Verification
from relay.web.answers import error
from relay.web.bearer import bearer_only


def evidence_routes(store: Store, api_token: str | None) -> Blueprint:
    """`/v1/calls/{id}/evidence` and `/v1/calls/{id}/verification`."""
    routes = bearer_only("evidence", api_token)

    @routes.get("/calls/<call_id>/evidence")
    @security_scheme([{"bearer": []}])
    async def evidence(call_id: str) -> ResponseReturnValue:
        """Everything on record of one call, as a tar.gz."""
        record = await store.get(call_id)
        word = await store.verify(call_id)
        if record is None or word is None:
            return _unknown(call_id)
        verdicts = await store.verdicts(call_id) + record.verdicts
        chain = await store.sealed(call_id)
        # In a thread: a long call has megabytes, and compressing them would stop the sound of all others.
        archive = await trio.to_thread.run_sync(partial(pack, record, verdicts, chain, word))
        answer = Response(archive, content_type="application/gzip")
        answer.headers["Content-Disposition"] = f'attachment; filename="{record.id}.tar.gz"'
        return answer

    @routes.get("/calls/<call_id>/verification")
    @security_scheme([{"bearer": []}])
    async def verification(call_id: str) -> ResponseReturnValue:
        """Whether the record of one call is what was written."""
        word = await store.verify(call_id)
        return _unknown(call_id) if word is None else jsonify({"id": call_id, **_as_json(word)})

    return routes


def pack(
    record: CallRecord,
    verdicts: list[dict[str, Any]],
    chain: list[SealedEntry],
    word: Verification,
) -> bytes:
    """The archive. The same record gives the same bytes, on any day and any node."""
    whole = record.as_json()
    files = {
        "record.json": _json(whole),
        "verdicts.json": _json(verdicts),
        "script.json": _json([event for event in whole["events"] if event["event"] == SCRIPT]),
        "disclosure.json": _json(_disclosure(whole["events"])),
        "transcript.json": _json(whole["transcript"]),
        "events.jsonl": b"".join(orjson.dumps(event) + b"\n" for event in whole["events"]),
        "chain.json": _json(_chain_as_json(record.id, chain)),
        "verification.json": _json(_as_json(word)),
    }
    files["SHA256SUMS"] = _sums(files)
    content = io.BytesIO()
    written_at = int((record.ended_at or record.started_at).timestamp())
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, file in files.items():
            member = tarfile.TarInfo(f"{record.id}/{name}")
            member.size, member.mtime, member.mode = len(file), written_at, 0o600  # it holds speech
            archive.addfile(member, io.BytesIO(file))
    return gzip.compress(content.getvalue(), mtime=written_at)


def _disclosure(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The proof that the disclosure was heard: who spoke which text, when it was over, and what shows it.

    In the greeting it is the echo of a mark, whose name ends with its generation: how often the phone was
    silenced before. A silenced mark proves nothing and is not noted. Where the carrier speaks it is what
    Twilio does only when nothing has stopped it: the start of the `stream`, or the `redirect` behind that.
    """
    proof: dict[str, Any] = {
        "mode": "greeting",
        "text_sha256": None,
        "heard_at": None,
        "mark": None,
        "followed_by": None,
    }
    for event in events:
        if event["event"] == SCRIPT and "disclosure" in event:
            proof |= {"mode": "carrier", "text_sha256": event["disclosure"]}
        elif event["event"] == SCRIPT:
            proof["text_sha256"] = event.get("opening")
        elif event["event"] == DISCLOSED:
            return {**proof, "heard_at": event["at"], "followed_by": event.get("by")}
        elif event["event"] == OPENING_HEARD and proof["mode"] == "greeting":
            return {**proof, "heard_at": event["at"], "mark": event.get("mark")}
    return proof


def _chain_as_json(call_id: str, chain: Iterable[SealedEntry]) -> dict[str, Any]:
    """With it anybody can seal and link the entries again: see `relay/store/chain.py` for the recipe."""
    entries = [
        {
            "position": entry.position,
            "kind": entry.kind,
            "at": entry.at.isoformat(timespec="microseconds"),
            "body": entry.body,
            "salt": entry.salt and entry.salt.hex(),
            "seal": entry.seal,
            "link": entry.link,
        }
        for entry in chain
    ]
    return {"call_id": call_id, "entries": entries}


def _sums(files: Mapping[str, bytes]) -> bytes:
    """What `sha256sum --check` reads."""
    return "".join(f"{hashlib.sha256(file).hexdigest()}  {name}\n" for name, file in files.items()).encode()


def _as_json(word: Verification) -> dict[str, str]:
    return {"integrity": word.integrity.value, "where": word.where}


def _json(content: object) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _unknown(call_id: str) -> ResponseReturnValue:
    return error(404, "unknown-call", f"there is no call {call_id[:64]}")
