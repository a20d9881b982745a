"""Whole calls in virtual time, with everything that goes wrong drawn from one seed.

Knows the house from the switchboard down, and speaks to it as the far ends do; no socket, no thread, no disk.
"""
