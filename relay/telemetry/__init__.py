"""What the house tells about itself: log lines.

Knows nothing of calls but the names of their identifiers.
"""
