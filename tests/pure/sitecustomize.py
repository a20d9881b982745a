"""For processes that are started with `--pure`: as if the codec had not been compiled."""

import sys

sys.modules["relay._straight"] = None  # type: ignore[assignment]  # importing it fails then
