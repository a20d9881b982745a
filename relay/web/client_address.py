"""Who asks, where a balancer stands between: its word counts where it is ours, and nobody else's does.

Must not know Quart, the log or what is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

Networks: TypeAlias = Collection[IPv4Network | IPv6Network]


def client_address(peer: str, forwarded_for: Sequence[str], proxies: Networks) -> str:
    """The address nearest to us that is no proxy of ours; `forwarded_for` are the values of X-Forwarded-For.

    Each proxy adds whom it heard at the right end. What stands left of an address that is none of ours was
    said by a stranger.
    """
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    nearest = peer
    while hops and _is_proxy(nearest, proxies):
        if _address(hop := hops.pop()) is None:
            break  # nobody's address, so nothing left of it can be trusted either
        nearest = hop
    return nearest


def _is_proxy(text: str, proxies: Networks) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in proxies)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
