"""The pages that are made from the code: `python scripts/reference.py` (`make docs`) writes them.

docs/settings.md and .env.example from the settings, docs/http.md from what a running service says at /openapi.json,
the tables of settings in README.md and of metrics in docs/metrics.md, and what a core carries in docs/operating.md.
Tests hold the files to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import trio
from structlog.testing import capture_logs

from relay.rehearsal import open_stage
from relay.settings import Accounts, Settings
from relay.telemetry.metrics import CATALOGUE

TOP = Path(__file__).parents[1]
MADE = "<!-- Made from the code by `make docs`: mend it there. -->"
SECRETS = frozenset({"RELAY_API_TOKEN", "RELAY_SUBJECT_KEY"})  # checked, so that their schema shows no secret

Schema = Mapping[str, Any]


# ---- schemas in words ----------------------------------------------------------------------------------------------


def words(schema: Schema, known: Schema) -> str:
    """What a value must be, of a JSON schema; `known` are the schemas that others refer to."""
    if "$ref" in schema:
        return words(known[schema["$ref"].rpartition("/")[2]], known)
    if "anyOf" in schema:
        return " or ".join(words(each, known) for each in schema["anyOf"] if each != {"type": "null"})
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    bounds = list(_bounds(schema))
    said = [schema["description"]] if "description" in schema and "title" not in schema else []
    return ", ".join([_kind(schema, known), *bounds, *said])


def _kind(schema: Schema, known: Schema) -> str:
    match schema.get("type"), schema.get("format"):
        case "string", "password":
            return "a secret"
        case "string", "path":
            return "a path"
        case "string", "date-time":
            return "an instant, ISO 8601 with its zone"
        case "integer", _:
            return "a whole number"
        case "number", _:
            return "a number"
        case "boolean", _:
            return "`true` or `false`"
        case "array", _:
            return f"a list: {words(schema.get('items', {}), known)}"
        case "object", _:
            inner = schema.get("additionalProperties")
            return f"names with values: {words(inner, known)}" if isinstance(inner, dict) else "an object"
    return "text"


def _bounds(schema: Schema) -> Iterator[str]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        yield f"{least:g} to {most:g}"
    elif least is not None:
        yield f"at least {least:g}"
    elif most is not None:
        yield f"at most {most:g}"
    if (above := schema.get("exclusiveMinimum")) is not None:
        yield f"above {above:g}"
    if (length := schema.get("maxLength")) is not None:
        yield f"at most {length} characters"
    if (items := schema.get("maxProperties", schema.get("maxItems"))) is not None:
        yield f"at most {items}"


def rows(heads: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> str:
    """A table; nothing without a line."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    table = [list(heads), ["---"] * len(heads), *cells]
    return "\n".join(
        f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("---| |", "---|") for line in table
    )


# ---- settings ------------------------------------------------------------------------------------------------------


def default_of(name: str, value: object) -> str:
    """How a default is shown."""
    if name in Accounts.__dataclass_fields__:
        return "required to serve"
    return "–" if value in (None, (), {}) else f"`{value}`"


def settings_page() -> str:
    """docs/settings.md."""
    schema = Settings.model_json_schema()

    def line(attribute: str) -> tuple[str, ...]:
        field = Settings.model_fields[attribute]
        name, (example,) = str(field.alias), field.examples or [""]
        is_secret = name in SECRETS
        value = "a secret" if is_secret else words(schema["properties"][name], schema.get("$defs", {}))
        shown = f"`{name}={example}`"
        return f"`{name}`", str(field.description), value, default_of(attribute, field.default), shown

    heads = ("name", "meaning", "value", "default", "example")
    return f"""# Settings

{MADE}

Read from the environment and, behind it, from `.env` in the working directory, once, at the start. A blank value counts
as unset. What cannot be used stops the start with exit status 2 and a line that names the variable, what is wrong and
how to mend it, and never repeats a value. `relay check` looks at them too, and at all that they name.

{rows(heads, map(line, Settings.model_fields))}
"""


def env_example() -> str:
    """.env.example: what serving needs is left to fill in."""
    blocks = ["# Read as .env from the working directory. The environment wins; blank means unset.\n"]
    for attribute, field in Settings.model_fields.items():
        (example,) = field.examples or [""]
        line = f"{field.alias}=" if attribute in Accounts.__slots__ else f"# {field.alias}={example}"
        blocks.append(f"# {field.description}\n{line}\n")
    return "\n".join(blocks)


def settings_table() -> str:
    """The one in README.md."""
    fields = Settings.model_fields.items()
    lines = ((f"`{f.alias}`", str(f.description), default_of(name, f.default)) for name, f in fields)
    return rows(("name", "meaning", "default"), lines)


def metrics_table() -> str:
    """The one in docs/metrics.md."""
    lines = (
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels) or "–", each.help)
        for each in CATALOGUE
    )
    return rows(("name", "type", "labels", "what it says"), lines)


def capacity() -> str:
    """What one core carries, by the last run of `make bench`; medians over its rounds."""
    found = json.loads((TOP / "docs" / "performance.json").read_text("utf-8"))
    machine = found["machine"]
    kinds = {
        "plain": "every frame echoed",
        "tls": "the same, TLS to the agent",
        "speech": "an agent that talks half of the time",
    }
    runs: dict[tuple[str, int], list[Schema]] = {}
    for run in found["runs"]:
        if run["relay"] == "relay":
            runs.setdefault((kinds[run["profile"]], run["calls"]), []).append(run)

    def of(several: list[Schema], name: str) -> float:
        return float(median(run[name] for run in several))

    lines = (
        (
            kind,
            f"{calls}",
            f"{of(several, 'core_share'):.0%}",
            f"{of(several, 'cpu_us_per_frame'):.0f}",
            f"{of(several, 'p99_ms'):.1f}",
            f"{sum(run['lost'] for run in several)}",
            f"{of(several, 'resident_bytes') / 1e6:.0f}",
        )
        for (kind, calls), several in runs.items()
    )
    heads = ("load", "calls", "of the core", "µs per frame", "p99, ms", "lost", "memory, MB")
    where = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}"
    return f"Measured on {found['date']}: {where}, by `make bench`.\n\n{rows(heads, lines)}"


def with_part(text: str, name: str, part: str) -> str:
    """A page, what stands between two marks replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, behind = text.partition(begin)
    return f"{before}{begin}{part}\n{end}{behind.partition(end)[2]}"


def with_table(text: str, table: str) -> str:
    """A page, its table with the same heads replaced."""
    head = table.splitlines()[0]
    before, found, behind = text.partition(head)
    assert found, f"no table {head}"
    rest = behind.splitlines(keepends=True)
    after = next(number for number, line in enumerate(rest) if number and not line.startswith("|"))
    return before + table + "\n" + "".join(rest[after:])


# ---- HTTP ----------------------------------------------------------------------------------------------------------

PARTS = (
    ("The operator's API", "/v1", "A bearer token, `RELAY_API_TOKEN`."),
    ("Health", "", "Open to whoever reaches the port."),
    ("What Twilio calls", "/tw", "A valid `X-Twilio-Signature` over `PUBLIC_URL`, else 403."),
)


def http_page(openapi: Schema) -> str:
    """docs/http.md."""
    paths = openapi["paths"]
    sections = []
    for title, prefix, who in PARTS:
        others = tuple(part for _, part, _ in PARTS if part)
        mine = [path for path in paths if path.startswith(prefix) and (prefix or not path.startswith(others))]
        told = [
            _operation(path, method, paths[path][method], openapi) for path in mine for method in paths[path]
        ]
        sections.append(f"## {title}\n\n{who}\n\n" + "\n".join(told))
    return f"""# HTTP

{MADE}

A running service describes itself at `GET /openapi.json`; this is the same for reading. Bodies and answers are JSON where
nothing else is said. An error is `{{"error": {{"code": "full", "message": "…"}}}}` with the fitting status: 401 for another
token, 404 for what is not there, 409 for a repeated key with another body, 413 for a body above 64 KiB, 415 for another
type, 422 for a value that cannot be used, 429 with `Retry-After` for too many, 503 while the ledger is down. The
[README](../README.md#placing-a-call-from-a-program) says what `POST /v1/calls` answers. The media stream, a WebSocket at
`/twilio-stream`, is not HTTP and not described here.

{chr(10).join(sections)}"""


def _operation(path: str, method: str, operation: Schema, openapi: Schema) -> str:
    known = openapi.get("components", {}).get("schemas", {})
    told = f"### {method.upper()} {path}\n\n{operation.get('summary', '')}\n"
    given = [
        (
            f"`{each['name']}`",
            each["in"],
            words(each["schema"], known),
            _default(each, each.get("required", False)),
        )
        for each in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in body:
        body = known[body["$ref"].rpartition("/")[2]]
    required = body.get("required", [])
    for name, schema in body.get("properties", {}).items():
        value = ", ".join(filter(None, [words(schema, known), _said(schema)]))
        given.append((f"`{name}`", "body", value, _default({"schema": schema}, name in required)))
    return f"{told}\n{rows(('name', 'in', 'value', 'left out'), iter(given))}\n" if given else told


def _said(schema: Schema) -> str:
    return str(schema.get("description", "")) if "title" in schema else ""


def _default(parameter: Schema, is_required: bool) -> str:
    if is_required:
        return "required"
    default = parameter["schema"].get("default")
    if default in (None, {}, []):
        return "–"
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"


async def openapi() -> Schema:
    """What a running service says of itself."""
    with TemporaryDirectory() as folder:
        with capture_logs():
            async with open_stage(Path(folder), synthesise=False) as stage:
                described: Schema = (await stage.http.get("/openapi.json")).json()
        return described


def pages(described: Schema) -> dict[Path, str]:
    """Every file that is made, with what must be in it."""
    readme, metrics, operating = TOP / "README.md", TOP / "docs" / "metrics.md", TOP / "docs" / "operating.md"
    return {
        TOP / ".env.example": env_example(),
        TOP / "docs" / "settings.md": settings_page(),
        TOP / "docs" / "http.md": http_page(described),
        readme: with_table(readme.read_text("utf-8"), settings_table()),
        metrics: with_table(metrics.read_text("utf-8"), metrics_table()),
        operating: with_part(operating.read_text("utf-8"), "capacity", capacity()),
    }


if __name__ == "__main__":
    for path, text in pages(trio.run(openapi)).items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(path.relative_to(TOP), file=sys.stderr)
