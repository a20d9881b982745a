"""The web application: its routes, and what every answer has in common.

Knows Quart; decides nothing about calls.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_network

from pydantic import ValidationError
from quart import Blueprint, Response, has_request_context, request
from quart.typing import ResponseReturnValue
from quart_schema import HttpSecurityScheme, Info, QuartSchema, RequestSchemaValidationError
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from relay import __version__
from relay.shapes import all_that_is_wrong
from relay.store import StoreError
from relay.store.csv_lines import CsvError
from relay.web.answers import error
from relay.web.client_address import client_address

BODY_BYTES = 64 * 1024  # of any request; Twilio's forms are below 4 KiB


Routes = Blueprint
"""A group of routes, for whoever composes them and need not know the framework."""


def create_app(*blueprints: Routes, proxies: Collection[str] = ()) -> QuartTrio:
    """The ASGI application of these routes: its limits, its description, and how it says no.

    `proxies` are the networks of balancers whose X-Forwarded-For is believed.
    """
    networks = [ip_network(network) for network in proxies]
    app = QuartTrio("relay")
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES
    app.config["BODY_TIMEOUT"] = 10  # seconds; a slow body is no webhook
    app.config["PROPAGATE_EXCEPTIONS"] = False
    QuartSchema(
        app,
        info=Info("Relay", __version__),
        security_schemes={"bearer": HttpSecurityScheme(scheme="bearer")},
        swagger_ui_path=None,  # the documentation pages load from a CDN
        redoc_ui_path=None,
        scalar_ui_path=None,
    )

    for blueprint in blueprints:
        app.register_blueprint(blueprint)

    @app.before_request
    async def see_who_asks() -> None:  # before any blueprint looks
        claimed = request.headers.getlist("X-Forwarded-For")
        request.remote_addr = client_address(request.remote_addr or "", claimed, networks)

    @app.errorhandler(RequestSchemaValidationError)
    async def bad_value(problem: RequestSchemaValidationError) -> ResponseReturnValue:
        wrong = problem.validation_error
        told = all_that_is_wrong(wrong, "body") if isinstance(wrong, ValidationError) else [str(wrong)]
        return error(422, "bad-value", "; ".join(told))

    @app.errorhandler(CsvError)
    async def bad_csv(problem: CsvError) -> ResponseReturnValue:
        return error(422, "bad-csv", str(problem))

    @app.errorhandler(StoreError)
    async def no_store(problem: StoreError) -> ResponseReturnValue:
        return error(503, "no-store", str(problem))

    @app.errorhandler(HTTPException)
    async def http_error(problem: HTTPException) -> ResponseReturnValue:
        if has_request_context() and request.path.startswith("/v1"):  # a refused upgrade has no request
            code = (problem.name or "error").lower().replace(" ", "-")
            return error(problem.code or 500, code, problem.description or "")
        return Response("", status=problem.code or 500)

    return app
