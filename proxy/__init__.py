"""The shell: decodes what agents send, asks `rules`, records the decision, and acts on it."""

BORDERPOST = True
"""Tells our package from another of the same name."""
