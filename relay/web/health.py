"""What a load balancer asks.

Knows Quart and the switchboard's one sentence about new calls.
"""

from __future__ import annotations

from quart import Blueprint, jsonify
from quart.typing import ResponseReturnValue

from relay.switchboard import Switchboard


def health_routes(switchboard: Switchboard) -> Blueprint:
    """`/livez` and `/readyz`."""
    routes = Blueprint("health", __name__)

    @routes.get("/livez")
    async def livez() -> ResponseReturnValue:
        """200 while the loop turns."""
        return jsonify({"status": "ok"})

    @routes.get("/readyz")
    async def readyz() -> ResponseReturnValue:
        """Whether new calls may be placed on this node."""
        refusal = switchboard.refusal
        if refusal is None:
            return jsonify({"status": "ok", "calls": len(switchboard.lines)})
        return jsonify({"status": refusal.code, "message": refusal.message}), 503

    return routes
