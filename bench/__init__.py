"""The relay beside what a user would pick instead, on the same machine, in the same minutes.

Knows peers, rounds, ratios and how to write them down; the rig that measures one relay is the package's own.
"""
