"""From bytes on the wire to a call. Pure functions over bytes and header tuples: no mitmproxy here.

Anything ambiguous is refused (`WireError`), never repaired: what is decided on is exactly what is sent on.
"""
