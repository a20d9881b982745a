"""What the product is made of, as a CycloneDX document: `python scripts/sbom.py > relay.cdx.json`.

Made from the pinned requirement files alone: the same pins give the same document, and no network is asked.
Licenses are those that the installed packages name; a package that is not installed here has none.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[1]
# What is shipped: `required` to run, `optional` with relay[tracing]; not what builds and tests it.
FILES = {"runtime": "required", "tracing": "optional"}
SPEC_VERSION = "1.6"

_PIN = re.compile(r"([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==([0-9a-z.]+)(?: ; ([^\\]+?))? \\$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_ASKED = re.compile(r"^([a-z0-9][a-z0-9-]*)", re.MULTILINE)


def pins(name: str) -> list[dict[str, Any]]:
    """The components of one requirement file, in its order."""
    found: list[dict[str, Any]] = []
    for line in (TOP / "requirements" / f"{name}.txt").read_text("utf-8").splitlines():
        if pin := _PIN.match(line):
            package, version, marker = pin.groups()
            found.append(component(package, version, FILES[name], marker))
        elif digest := _HASH.search(line):
            found[-1]["hashes"].append({"alg": "SHA-256", "content": digest[1]})
    return found


def component(package: str, version: str, scope: str, marker: str | None) -> dict[str, Any]:
    """One package. Its hashes are those of all its distributions that may be installed."""
    entry: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference(package, version),
        "name": package,
        "version": version,
        "scope": scope,
        "purl": reference(package, version),
        "hashes": [],
    }
    if license_text := license_of(package):
        entry["licenses"] = [{"license": {"name": license_text}}]
    if marker:
        entry["properties"] = [{"name": "relay:marker", "value": marker}]
    return entry


def reference(package: str, version: str) -> str:
    """The package URL, which names it here too."""
    return f"pkg:pypi/{package}@{version}"


def license_of(package: str) -> str:
    """What an installed package says of its license; the older field may hold a whole text."""
    try:
        known = metadata(package).json
    except PackageNotFoundError:
        return ""
    return str(known.get("license_expression") or known.get("license", "")).partition("\n")[0][:100]


def document(version: str) -> dict[str, Any]:
    """The whole of it."""
    components = {each["bom-ref"]: each for name in reversed(FILES) for each in pins(name)}
    refs = {each["name"]: each["bom-ref"] for each in components.values()}
    asked = [_ASKED.findall((TOP / "requirements" / f"{name}.in").read_text("utf-8")) for name in FILES]
    relay = reference("relay", version)
    depends_on = sorted({refs[package] for packages in asked for package in packages})
    content = {
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": relay,
                "name": "relay",
                "version": version,
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": sorted(components.values(), key=lambda each: str(each["name"])),
        "dependencies": [{"ref": relay, "dependsOn": depends_on}],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    head = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
    }
    return {**head, **content}


def version_of(top: Path) -> str:
    """The version as the package has it."""
    found = re.search(
        r'^__version__ = "([^"]+)"$', (top / "relay" / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    assert found is not None
    return found[1]


if __name__ == "__main__":
    json.dump(document(version_of(TOP)), sys.stdout, indent=2)
    sys.stdout.write("\n")
