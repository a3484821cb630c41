"""Runs the confused agent twice, without and with Borderpost, and says what reached the API each time.

The second run takes the same path as `borderpost run`: the agent's process gets another environment, and nothing else.
All that is said was counted by the API or is in the ledger. Everything is kept in one directory, to look further.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from proxy import child, launch, rulefiles
from proxy.demo.api import Api, Counts
from proxy.settings import Settings

HERE = Path(__file__).parent
RULES_PORT = ":8443"
"""Stands in `rules.yaml` for the port that the API gets."""

LEDGER, RULES = "ledger.db", "rules.yaml"
RUN = "demo"


class DemoError(Exception):
    """The demo could not be run. The text is one line."""


class Step(msgspec.Struct, frozen=True):
    """What the agent thought, and what it was told: `status` is 0 when no answer came in time."""

    thought: str
    status: int
    text: str


class Demo(msgspec.Struct, frozen=True):
    """What was measured. `directory` holds the ledger, the rules, the keys and what the agent saw."""

    directory: Path
    without: Counts
    guarded: Counts
    steps_without: tuple[Step, ...]
    steps_guarded: tuple[Step, ...]

    @property
    def ledger(self) -> Path:
        """The ledger of the second run."""
        return self.directory / LEDGER

    @property
    def rules(self) -> Path:
        """The rules of the second run."""
        return self.directory / RULES


def run_demo(directory: Path, say: Callable[[str], None]) -> Demo:
    """Both runs, in `directory`, which is made or empty. `say` gets a line at each start. Call it on the main thread.

    Raises `DemoError`, or what `proxy.launch.run_alone` raises.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise DemoError(f"`{directory}` is not empty: give a new directory")
    return asyncio.run(_both_runs(directory, say))


async def _both_runs(directory: Path, say: Callable[[str], None]) -> Demo:
    say("the agent calls the API directly ...")
    transcript_without = directory / "agent-without.jsonl"
    async with Api(directory) as direct:
        await _must_succeed(child.run(_agent(direct, transcript_without), _environment(direct)))

    say("the same agent, through Borderpost ...")
    transcript = directory / "agent-with.jsonl"
    notes: list[str] = []
    async with Api(directory) as guarded:
        settings, rules = _set_up(directory, guarded)
        await _must_succeed(launch.run_alone(settings, rules, _agent(guarded, transcript), notes.append), notes)
    return Demo(directory, direct.counts, guarded.counts, _steps(transcript_without), _steps(transcript))


def _agent(api: Api, transcript: Path) -> Sequence[str]:
    """The agent's command: isolated from our packages, as if it were installed elsewhere."""
    return sys.executable, "-I", str(HERE / "agent.py"), f"https://localhost:{api.port}", str(transcript)


def _environment(api: Api) -> dict[str, str]:
    """Our environment without any proxy, trusting the API's authority."""
    away = {*child.PROXY_VARIABLES, *child.UNSET}
    return {name: value for name, value in os.environ.items() if name not in away} | {
        "SSL_CERT_FILE": str(api.authority)
    }


def _set_up(directory: Path, api: Api) -> tuple[Settings, rulefiles.RuleFiles]:
    """The settings and rules of the second run: a confdir and a ledger of its own, a free port."""
    rules = directory / RULES
    rules.write_text((HERE / RULES).read_text().replace(RULES_PORT, f":{api.port}"))
    settings = Settings(
        command="run",
        ledger=directory / LEDGER,
        confdir=directory / "confdir",
        listen_host="127.0.0.1",
        listen_port=0,
        rules=(rules,),
        upstream_ca=(api.authority,),
        agent="confused",
        run=RUN,
    )
    return settings, rulefiles.read(settings.rules, directory)


async def _must_succeed(run: Awaitable[int], notes: Sequence[str] = ()) -> None:
    code = await run
    if code:
        raise DemoError("; ".join([f"the demo's agent ended with exit code {code}", *notes]))


def _steps(transcript: Path) -> tuple[Step, ...]:
    return tuple(msgspec.json.decode(line, type=Step) for line in transcript.read_bytes().splitlines())
