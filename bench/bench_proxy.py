"""End to end, against stock `mitmdump -q`: HTTPS interception, HTTP/1.1 keep-alive, 200 bytes out, 500 bytes back.

Borderpost decides with 1,000 rules, de-duplicates, throttles, and has every decision on disk before it sends. The two
take turns in one run on loopback, with upstream and load generator in processes of their own, so only the ratios mean
something elsewhere. CPU time is that of the proxy's process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import trustme

from bench.load import Load

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
REFERENCE, BARE, OURS = "mitmdump", "bare", "borderpost"
PROXIES = (REFERENCE, BARE, OURS)
"""`bare` is our own embedding of mitmproxy with the guards off: nothing is decided, nothing is recorded."""
RULES = 1000
START_S = 20.0


class Measured(msgspec.Struct, frozen=True):
    """One proxy under one number of connections: medians over the rounds. `cpu_us` is per request, 0 if unknown."""

    proxy: str
    connections: int
    per_second: float
    cpu_us: float
    p50_us: float
    p99_us: float


class Ratio(msgspec.Struct, frozen=True):
    """Borderpost in terms of `than`: throughput above 1 and CPU below 1 are better; medians over the rounds."""

    than: str
    connections: int
    throughput: float
    cpu: float
    p50_added_us: float


class Round(msgspec.Struct, frozen=True):
    load: Load
    cpu_us: float


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Sequence[str], **how: object) -> Iterator[subprocess.Popen[str]]:
    """`command` for as long as the block lasts."""
    process: subprocess.Popen[str] = subprocess.Popen(command, text=True, **how)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"`{' '.join(map(str, process.args))}` did not start to listen")  # type: ignore[arg-type]


def cpu_s(process: subprocess.Popen[str]) -> float:
    """CPU seconds of a process so far, where the system tells (Linux)."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rules(upstream_port: int) -> str:
    """A rule file of `RULES` rules, of which one allows the benchmark's call and guards it."""
    here = f"https://localhost:{upstream_port}"
    lines = ["version: 1", "tools:", f"  thing.create: POST {here}/v1/things"]
    lines += [f"  other.{number}: POST {here}/v1/others/{number}/{{id}}" for number in range(RULES - 1)]
    lines += ["rules:"]
    lines += ["  - {id: create, tool: thing.create, allow: true, dedupe: 10m, throttle: 100000/s}"]
    lines += [f"  - {{id: other-{number}, tool: other.{number}, allow: true}}" for number in range(RULES - 1)]
    return "\n".join(lines) + "\n"


def commands(directory: Path, upstream_port: int, ca: Path, ports: dict[str, int]) -> dict[str, list[str]]:
    """How the two proxies are started."""
    (directory / "rules.yaml").write_text(rules(upstream_port))
    confdir = {name: directory / name for name in PROXIES}
    for path in confdir.values():
        path.mkdir(mode=0o700)
    return {
        REFERENCE: [
            *(str(BIN / "mitmdump"), "-q", "--listen-host", "127.0.0.1", "--listen-port", str(ports[REFERENCE])),
            *("--set", f"confdir={confdir[REFERENCE]}", "--set", f"ssl_verify_upstream_trusted_ca={ca}"),
        ],
        BARE: [sys.executable, "-m", "bench.bare", str(ports[BARE]), str(confdir[BARE]), str(ca)],
        OURS: [
            *(str(BIN / "borderpost"), "serve", "--listen", f"127.0.0.1:{ports[OURS]}", "--upstream-ca", str(ca)),
            *("--confdir", str(confdir[OURS]), "--ledger", str(directory / "ledger" / "ledger.db")),
            *("--rules", str(directory / "rules.yaml")),
        ],
    }


def authority(directory: Path, name: str) -> Path:
    """The certificate that a client of the proxy has to trust."""
    return directory / name / ("mitmproxy-ca-cert.pem" if name == REFERENCE else "ca.pem")


def one_round(
    directory: Path, name: str, process: subprocess.Popen[str], ports: dict[str, int], how: Sequence[str]
) -> Round:
    command = [sys.executable, str(HERE / "load.py"), str(ports[name]), str(ports["upstream"])]
    command += [str(authority(directory, name)), *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as generator:
        assert generator.stdout is not None
        generator.stdout.readline()  # its connections stand, and it has warmed up
        before_s = cpu_s(process)
        result = generator.stdout.readline()
        took_s = cpu_s(process) - before_s
    if not result:
        raise SystemExit(f"the load generator failed against {name}")
    load = msgspec.json.decode(result, type=Load)
    if load.failures:
        raise SystemExit(f"{name} answered {load.failures} of {load.requests} requests with another status than 200")
    return Round(load, took_s * 1e6 / load.requests)


def compare(
    connections: Sequence[int], rounds: int, seconds: float, names: Sequence[str]
) -> dict[tuple[str, int], list[Round]]:
    """All rounds. Within one, the proxies take turns."""
    found: dict[tuple[str, int], list[Round]] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="borderpost-bench-")))
        made = trustme.CA()
        made.cert_pem.write_to_path(directory / "upstream-ca.pem")
        made.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(directory / "upstream.pem")
        upstream = stack.enter_context(
            running(
                [sys.executable, str(HERE / "upstream.py"), str(directory / "upstream.pem")], stdout=subprocess.PIPE
            )
        )
        assert upstream.stdout is not None
        ports = {name: free_port() for name in PROXIES} | {"upstream": int(upstream.stdout.readline())}
        started = commands(directory, ports["upstream"], directory / "upstream-ca.pem", ports)
        log = stack.enter_context((directory / "log").open("w"))
        processes = {name: stack.enter_context(running(started[name], stdout=log, stderr=log)) for name in names}
        for name, process in processes.items():
            wait_for(ports[name], process)
        for count in connections:
            for _ in range(rounds):
                for name, process in processes.items():
                    done = one_round(directory, name, process, ports, [str(count), str(seconds)])
                    found.setdefault((name, count), []).append(done)
    return found


def summary(found: dict[tuple[str, int], list[Round]]) -> list[Measured]:
    return [
        Measured(
            proxy=name,
            connections=count,
            per_second=statistics.median(one.load.per_second for one in rounds),
            cpu_us=statistics.median(one.cpu_us for one in rounds),
            p50_us=statistics.median(one.load.p50_us for one in rounds),
            p99_us=statistics.median(one.load.p99_us for one in rounds),
        )
        for (name, count), rounds in found.items()
    ]


def ratios(found: dict[tuple[str, int], list[Round]]) -> list[Ratio]:
    """Round by round, so that what slows the machine down for a while slows both."""
    pairs = {
        (than, count): list(zip(found[OURS, count], theirs, strict=True))
        for (than, count), theirs in found.items()
        if than != OURS and (OURS, count) in found
    }
    return [
        Ratio(
            than=than,
            connections=count,
            throughput=statistics.median(our.load.per_second / their.load.per_second for our, their in rounds),
            cpu=statistics.median(our.cpu_us / their.cpu_us if their.cpu_us else 0.0 for our, their in rounds),
            p50_added_us=statistics.median(our.load.p50_us - their.load.p50_us for our, their in rounds),
        )
        for (than, count), rounds in pairs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each time (%(default)s)")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64], help="at once")
    parser.add_argument("--proxy", choices=PROXIES, nargs="+", default=PROXIES)
    args = parser.parse_args()
    found = compare(args.connections, args.rounds, args.seconds, args.proxy)
    measured, compared = summary(found), ratios(found)
    if args.json:
        print(msgspec.json.encode({"measured": measured, "ratios": compared}).decode())
        return
    print(f"{'proxy':<12}{'connections':>12}{'requests/s':>12}{'CPU us/req':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for one in measured:
        print(
            f"{one.proxy:<12}{one.connections:>12}{one.per_second:>12.0f}{one.cpu_us:>12.0f}"
            f"{one.p50_us / 1000:>9.2f}{one.p99_us / 1000:>9.2f}"
        )
    for ratio in compared:
        print(
            f"at {ratio.connections:>2} connections Borderpost does {ratio.throughput:.2f} times the requests of "
            f"{ratio.than}, at {ratio.cpu:.2f} times the CPU each; p50 {ratio.p50_added_us / 1000:+.2f} ms"
        )


if __name__ == "__main__":
    main()
