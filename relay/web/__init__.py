"""The web edge: HTTP and the admission of the phone stream.

The only package that knows Quart and Hypercorn; holds no rule of the domain.
"""
