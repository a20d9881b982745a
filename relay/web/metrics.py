"""What Prometheus asks for, and the count of everything that was asked.

Knows Quart and the registry; whoever comes through a proxy comes from outside and is told nothing.
"""

from __future__ import annotations

import structlog
import trio
from quart import Blueprint, Response, abort, g, request
from quart.typing import ResponseReturnValue

from relay.telemetry.metrics import CONTENT_TYPE, HTTP_REQUESTS, HTTP_SECONDS, Metrics

log = structlog.get_logger(subsystem="web")

# A tunnel or a balancer adds at least one of them, and its clients cannot take it away again.
_FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via")


def metrics_routes(metrics: Metrics) -> Blueprint:
    """`/metrics`, and a look at every answer of the application."""
    routes = Blueprint("metrics", __name__)
    scrapes = trio.CapacityLimiter(1)  # a second one at a time waits for its turn

    @routes.get("/metrics")
    async def scrape() -> ResponseReturnValue:
        """How much this node does; no numbers, no ids. 404 for whoever comes through a proxy."""
        if any(name in request.headers for name in _FORWARDED):
            abort(404)
        # In a thread: of the loop it would take 6 ms with 200 calls, in which no audio moves.
        text = await trio.to_thread.run_sync(metrics.text, limiter=scrapes)
        return Response(text, content_type=CONTENT_TYPE)

    @routes.before_app_request
    async def begin() -> None:
        g.asked_at = trio.current_time()

    @routes.after_app_request
    async def count(response: Response) -> Response:
        route = "unmatched" if request.url_rule is None else request.url_rule.rule
        metrics.count(HTTP_REQUESTS, route, str(response.status_code))
        seconds = trio.current_time() - g.asked_at
        metrics.observe(HTTP_SECONDS, seconds, route)
        # By its route alone: paths and queries have numbers and ids in them.
        log.debug(
            "request",
            method=request.method,
            route=route,
            status=response.status_code,
            seconds=round(seconds, 4),
            client=request.remote_addr,
        )
        return response

    return routes
