"""The outside world, emulated: a carrier with a telephone and its callee, and a voice agent.

Sees the service only through byte streams and imports nothing of it.
"""
