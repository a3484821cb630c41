"""The pure core: what a call is, what may happen to it, and why.

No I/O, no clock, no randomness, no mitmproxy, no SQLAlchemy: time and texts come in as arguments, values go out.
"""

BORDERPOST = True
"""Tells our package from another of the same name."""
