"""Who is calling: reads proxy credentials, checks them, and gives the client connection its agent.

Credentials are seen when a tunnel is opened (and on cleartext requests); all calls of that connection are the agent's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from urllib.parse import unquote

import msgspec

from proxy import presence
from proxy.agents import Agents
from proxy.runs import JoinedRun, Runs
from proxy.settings import Settings
from proxy.wire.error import WireError


class Client(msgspec.Struct, frozen=True):
    """Who a client is. `run`: the one that has joined and that it belongs to; empty for all others."""

    agent: str
    run: str = ""


class Doorman:
    """Identifies clients. Under `run` the only good credentials are the child's; under `serve`, the agents' tokens and
    those of the children of runs that have joined. These are good for as long as the `run` lives."""

    def __init__(self, settings: Settings, agents: Agents, runs: Runs) -> None:
        self._settings = settings
        self._agents = agents
        self._runs = runs

    def identify(self, authorization: str | None, now_ns: int) -> Client:
        """The client that sent this `Proxy-Authorization` value, or none. Raises `WireError` (407) if it is nobody."""
        if authorization is None:
            if self._settings.token_required:
                raise _refused("This proxy wants a token: use http://AGENT:TOKEN@host:port as the proxy URL.")
            return Client(self._settings.agent)
        name, token = _basic(authorization)
        if self._settings.token:
            known = hmac.compare_digest(token.encode(), self._settings.token.encode())
            if not known or name != self._settings.agent:
                raise _refused("The agent or token in the proxy URL is not the one of this run.")
            return Client(name)
        joined = self._runs.joined_with(token)
        if joined is not None:
            return self._of_joined(joined, name)
        reason = self._agents.check(name, token, now_ns)
        if reason is not None:
            shown = "expired" if reason == "expired" else "not known"
            raise _refused(f"The agent or token in the proxy URL is {shown}. Ask the operator for a new token.")
        return Client(name)

    def _of_joined(self, joined: JoinedRun, name: str) -> Client:
        """The child of a run that has joined, if that still lives. Its end may not be on record yet."""
        if name != joined.agent:
            raise _refused("The agent in the proxy URL is not the one of this run.")
        try:
            lives = presence.lives(self._settings.confdir, joined.hash)
        except OSError:
            lives = False
        if not lives:
            raise _refused("The run that this token was made for has ended.")
        return Client(name, joined.run)


def _basic(authorization: str) -> tuple[str, str]:
    """User and password of a Basic credential (RFC 7617), both percent-decoded as proxy URLs are."""
    scheme, _, encoded = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        raise _refused("Proxy credentials have to be Basic: use http://AGENT:TOKEN@host:port as the proxy URL.")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = user = password = ""
    if not colon:
        raise _refused("The proxy credentials cannot be read: use http://AGENT:TOKEN@host:port as the proxy URL.")
    return unquote(user), unquote(password)


def _refused(detail: str) -> WireError:
    return WireError("proxy-auth-required", detail)
