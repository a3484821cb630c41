"""Runs the agents of this directory, each as it is and behind Borderpost, and tells what reached the shop.

    python examples/run.py                 every framework, each in an environment of its own (made under `.agents/`)
    python examples/run.py plain           only these

What is counted is counted by the shop. Nothing leaves this machine but the downloads of packages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from examples.servers import Server  # noqa: E402  this file is run as a script

ENVIRONMENTS = HERE.parent / ".agents"
RULES_ORIGIN = "http://127.0.0.1:8941"

AGENTS: dict[str, tuple[str, ...]] = {
    "plain": ("requests",),
    "openai_sdk": ("openai", "httpx"),
    "langgraph_agent": ("langchain>=1", "langgraph", "langchain-openai", "requests"),
    "autogen_agent": ("autogen-agentchat>=0.7", "autogen-ext[openai]", "httpx"),
    "crewai_agent": ("crewai", "requests"),
    "openai_agents": ("openai-agents", "httpx"),
    "pydantic_ai_agent": ("pydantic-ai-slim[openai]", "httpx"),
}
"""Agent -> the packages that it needs."""

TASKS = {
    "normal": "Refund the charge ch_1. task: normal",
    "twice": "Refund the charge ch_1. task: twice",
    "undefined": "Refund the charge ch_1. task: undefined",
    "order": "Refund the charge ch_1. task: order",
    "retry": "Make the report of May. task: retry",
}

COUNTED = {"normal": "refunds", "twice": "refunds", "undefined": "forced", "order": "unread", "retry": "reports"}
"""Task -> what of it the shop counts: refunds, those with a parameter that nobody defined, those of a charge that was
not looked at, reports that were asked for."""


@dataclass(frozen=True)
class Ran:
    """One run of an agent: its last words, what reached the shop, and how it ended."""

    words: str
    counts: Mapping[str, int]
    code: int
    errors: str


def run_agent(python: Path, agent: str, task: str, *, behind: bool, borderpost: Path) -> Ran:
    """Run `agent` with `python` on `task`, as it is or behind Borderpost."""
    server = Server()
    server.begin()
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": f"{server.origin}/v1",
        "OPENAI_API_KEY": "none-is-needed",
        "SHOP_URL": server.origin,
        "CREWAI_DISABLE_TELEMETRY": "true",
        "OTEL_SDK_DISABLED": "true",
    }
    command = [str(python), str(HERE / "agents" / f"{agent}.py"), TASKS[task]]
    with tempfile.TemporaryDirectory() as directory:
        if behind:
            rules = Path(directory, "rules.yaml")
            rules.write_text((HERE / "rules.yaml").read_text().replace(RULES_ORIGIN, server.origin))
            places = ["--rules", str(rules), "--ledger", f"{directory}/ledger.db", "--confdir", f"{directory}/confdir"]
            command = [str(borderpost), *places, "run", "--", *command]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    server.shutdown()
    server.server_close()
    lines = done.stdout.strip().splitlines()
    return Ran(lines[-1] if lines else "", dict(server.counts), done.returncode, done.stderr)


def environment_of(agent: str) -> Path:
    """The Python of the environment that `agent` runs in; made when it is not there yet."""
    directory = ENVIRONMENTS / agent
    python = directory / "bin" / "python"
    ready = directory / "ready"
    if not ready.exists():
        print(f"installing what {agent} needs", file=sys.stderr)
        venv.create(directory, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *AGENTS[agent]], check=True)
        ready.touch()
    return python


def main(chosen: Iterable[str]) -> int:
    """Run the chosen agents and print the table. 0 when each of them did the right thing behind Borderpost."""
    borderpost = Path(sys.executable).with_name("borderpost")
    print(f"{'':20}" + "".join(f"{task:>18}" for task in TASKS))
    failed = 0
    for agent in chosen:
        python = environment_of(agent)
        cells = []
        for task in TASKS:
            alone = run_agent(python, agent, task, behind=False, borderpost=borderpost)
            behind = run_agent(python, agent, task, behind=True, borderpost=borderpost)
            problem = problem_of(task, behind)
            failed += bool(problem)
            if problem:
                print(f"{agent}, {task}: {problem}\n{behind.words}\n{behind.errors[-2000:]}", file=sys.stderr)
            what = COUNTED[task]
            cells.append(f"{alone.counts.get(what, 0)} -> {behind.counts.get(what, 0)}{'' if not problem else ' !'}")
        print(f"{agent:20}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    return 1 if failed else 0


def problem_of(task: str, ran: Ran) -> str:
    """What is wrong with a run behind Borderpost; empty when nothing is."""
    if ran.code:
        return f"it ended with {ran.code}"
    refunds = ran.counts.get("refunds", 0)
    if task == "retry":
        if ran.counts.get("reports", 0) > 3 or not ran.words.startswith("I gave up"):
            return "it tried for ever"
    elif refunds != 1 or ran.counts.get("forced", 0) or ran.counts.get("unread", 0):
        return f"{refunds} refunds reached the shop"
    elif not ran.words.startswith("Refunded."):
        return "it ended with no sensible answer"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or AGENTS))
