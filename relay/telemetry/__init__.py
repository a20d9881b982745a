"""What the house tells about itself: log lines, metrics, traces, and copies of what was said on the wire.

Knows calls by their finished records and by the names of their identifiers; asks none of them anything.
"""
