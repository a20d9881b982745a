"""Whole calls over real sockets, between real processes, while the connections and the service are struck.

Knows the service from outside alone: what it answers, logs and holds open.
"""
