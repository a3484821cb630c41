"""Who may use the proxy from elsewhere: agents with a token each. Only the SHA-256 of a token is kept.

`agents.json` in the configuration directory (0600) is replaced as a whole, so a reader never sees half of it. The
command line writes it, with or without a proxy running; a running proxy looks at the file before each check.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from proxy.confdir import reason
from proxy.settings import SettingsError, check_name, new_token, token_sha256

type Reason = Literal["unknown agent", "wrong token", "expired", "agents.json unreadable"]

_NOBODY = token_sha256("")


class AgentsError(Exception):
    """The list of agents cannot be read or changed. The text is one line for the operator."""


class Agent(msgspec.Struct, frozen=True):
    """One agent. `token_sha256` is hex; `expires_ns` is 0 when its token never expires."""

    name: str
    token_sha256: str
    created_ns: int
    expires_ns: int = 0

    def expired(self, now_ns: int) -> bool:
        """Whether its token is no longer good at `now_ns`."""
        return bool(self.expires_ns) and now_ns >= self.expires_ns


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    agents: tuple[Agent, ...]


class Agents:
    """The agents of one configuration directory. The directory need not exist until one is added."""

    def __init__(self, confdir: Path) -> None:
        self._path = confdir / "agents.json"
        self._seen: tuple[int, int, int] | None = None
        self._agents: dict[str, Agent] = {}

    def add(self, name: str, now_ns: int, *, expires_ns: int = 0, replace: bool = False) -> str:
        """Give `name` a token and return it: the only time that it can be seen."""
        try:
            check_name(name, "agent name")
        except SettingsError as error:
            raise AgentsError(str(error)) from None
        token = new_token()
        with self._changing() as agents:
            if name in agents and not replace:
                raise AgentsError(f"agent `{name}` has a token already: use `--replace` to give it a new one")
            agents[name] = Agent(name, token_sha256(token), now_ns, expires_ns)
        return token

    def remove(self, name: str) -> bool:
        """Take the token of `name` away. False when there is no such agent."""
        with self._changing() as agents:
            return agents.pop(name, None) is not None

    def list(self) -> tuple[Agent, ...]:
        """All agents by name."""
        return tuple(sorted(self._current().values(), key=lambda agent: agent.name))

    def check(self, name: str, token: str, now_ns: int) -> Reason | None:
        """Why `token` does not prove that the client is `name`, or None when it does. Takes the same time always."""
        try:
            agent = self._current().get(name)
        except AgentsError:
            return "agents.json unreadable"
        right = hmac.compare_digest(token_sha256(token), agent.token_sha256 if agent else _NOBODY)
        if agent is None:
            return "unknown agent"
        if not right:
            return "wrong token"
        return "expired" if agent.expired(now_ns) else None

    def _current(self) -> dict[str, Agent]:
        """The agents as the file has them now; it is read again only when it was replaced."""
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                file = msgspec.json.decode(self._path.read_bytes(), type=_File)
                self._agents = {agent.name: agent for agent in file.agents}
                self._seen = seen
        except FileNotFoundError:
            self._agents, self._seen = {}, None
        except OSError as error:
            raise AgentsError(f"cannot read `{self._path}`: {reason(error)}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AgentsError(f"`{self._path}` is damaged: {error}; remove it and add the agents again") from None
        return self._agents

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Agent]]:
        """The agents to change; they are written when the block ends well. One process changes at a time."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AgentsError(f"cannot write `{self._path}`: {reason(error)}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            agents = dict(self._current())
            yield agents
            self._write(agents)
        except OSError as error:
            raise AgentsError(f"cannot write `{self._path}`: {reason(error)}") from None
        finally:
            os.close(lock)

    def _write(self, agents: dict[str, Agent]) -> None:
        content = msgspec.json.encode(_File(1, tuple(sorted(agents.values(), key=lambda agent: agent.name))))
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".agents-")  # made 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(content, indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
