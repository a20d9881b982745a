"""Relay: telephone calls by an AI agent, bridged between Twilio and AssemblyAI.

Knows nothing but its own version.
"""

from importlib import resources

__version__ = "0.1.0"


def commit() -> str:
    """The commit that this was built from; empty in a checkout, which may be at any."""
    written = resources.files(__name__).joinpath("COMMIT")
    return written.read_text(encoding="ascii").strip() if written.is_file() else ""


def full_version() -> str:
    """For people: the version, and the commit of a build."""
    built_from = commit()
    return f"{__version__} ({built_from})" if built_from else __version__
