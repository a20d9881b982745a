"""What this relay carries on this machine: load from outside, figures from the kernel.

Knows the relay by its sockets and its process alone, as a carrier, an agent and an operator would.
"""
