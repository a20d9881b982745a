"""The migrations, one module each, in the order of their numbers.

Knows nothing: each of them stands for itself.
"""
