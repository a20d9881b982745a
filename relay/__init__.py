"""Relay: telephone calls by an AI agent, bridged between Twilio and AssemblyAI.

Knows nothing but its own version.
"""

__version__ = "0.1.0"
