"""Pure vocabulary of both vendors' protocols.

Knows no trio, no clock, no socket and no log.
"""
