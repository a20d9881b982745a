"""Renders the relay's own sentences into relay/clips: `scripts/clips.py`. Needs the `speech` extra.

Must not be imported: a command for people. espeak-ng never speaks twice alike, so each run changes the files.
"""

from __future__ import annotations

import sys
from pathlib import Path

from relay import clips
from relay.simulator.sound import BYTES_PER_SECOND
from relay.simulator.speech import espeak

FOLDER = Path(clips.__file__).parent


def main() -> None:
    """Render every sentence, and say how long each one is."""
    for name, text in clips.TEXTS.items():
        sound = espeak.render("agent", text)
        (FOLDER / f"{name}.ulaw").write_bytes(sound)
        sys.stdout.write(f"{len(sound) / BYTES_PER_SECOND:.2f} s  {name}\n")


if __name__ == "__main__":
    main()
