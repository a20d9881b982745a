"""Renders every text of the shipped scenarios into this package: `python -m relay.simulator.speech`.

It must not know calls; a kept text stays as it is, since espeak-ng never speaks twice alike.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from relay.simulator.scenario import shipped_names, shipped_scenario
from relay.simulator.sound import BYTES_PER_SECOND
from relay.simulator.speech import ONE_MOMENT, TOOL_FAILED, espeak, key

FOLDER = Path(__file__).parent


def wanted_texts() -> dict[str, tuple[str, str]]:
    """Everything that the shipped scenarios and the emulated agent may say: (voice, text) by key."""
    texts = [pair for name in shipped_names() for pair in shipped_scenario(name).texts()]
    texts += [("agent", text) for text in (ONE_MOMENT, TOOL_FAILED)]
    return {key(voice, text): (voice, text) for voice, text in texts}


def main() -> None:
    """Render what is missing, remove what is no longer said, and write the index."""
    wanted = wanted_texts()
    for stale in FOLDER.glob("*.ulaw"):
        if stale.stem not in wanted:
            stale.unlink()
    index = {}
    for name, (voice, text) in sorted(wanted.items(), key=lambda item: item[1]):
        rendering = FOLDER / f"{name}.ulaw"
        if not rendering.exists():
            rendering.write_bytes(espeak.render(voice, text))
        seconds = round(rendering.stat().st_size / BYTES_PER_SECOND, 2)
        index[name] = {"voice": voice, "text": text, "seconds": seconds}
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in FOLDER.glob("*.ulaw"))
    sys.stdout.write(f"{len(index)} renderings, {size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
