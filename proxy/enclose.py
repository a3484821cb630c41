"""Run in a process of its own by `run --isolated`: goes into a new network namespace, and becomes the command there.

Nothing but the standard library, since it runs without ours. It speaks with `proxy.isolation` over the socket whose
number is its argument: says that it has left (`left`), hears that its user is mapped (`mapped`), and sends a listening
socket of the new namespace with that namespace's counters. Then it is told what to become. Whatever fails is said as
`error`, and nothing is run: it ends when the other side does.

Source: user_namespaces(7), network_namespaces(7), netdevice(7).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
COUNTERS = ("/proc/self/net/snmp", "/proc/self/net/snmp6")


def main(talk: socket.socket) -> None:
    talk.set_inheritable(False)  # its end says that the command has begun
    hears = talk.makefile("r", encoding="utf-8")
    order = json.loads(hears.readline())
    what = "make a user and a network namespace"
    try:
        has_user = _leave()
        _say(talk, {"left": True, "user": has_user})
        if not hears.readline():
            return
        what = "bring the loopback device up in a network namespace"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
        what = "listen in a network namespace"
        listener = socket.create_server(("127.0.0.1", order["port"]), backlog=1024)
        what = "read the counters of a network namespace"
        counters = [os.open(path, os.O_RDONLY) for path in COUNTERS if os.access(path, os.R_OK)]
        _say(talk, {"listens": True}, [listener.fileno(), *counters])
        listener.close()
        for counter in counters:
            os.close(counter)
        line = hears.readline()
        if not line:
            return
        become = json.loads(line)
        what = "run the command"
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
            signal.signal(number, signal.SIG_DFL)
        argv = [word.encode("utf-8", "surrogateescape") for word in become["command"]]
        environment = {
            name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
            for name, value in become["environment"].items()
        }
        os.execve(become["program"].encode("utf-8", "surrogateescape"), argv, environment)
    except OSError as error:
        _say(talk, {"error": what, "errno": error.errno})
        sys.exit(1)


def _leave() -> bool:
    """Leave the network, and say whether into a user namespace of our own: root may do without, where there is none."""
    try:
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
        return True
    except OSError:
        if os.geteuid() != 0:
            raise
        os.unshare(os.CLONE_NEWNET)
        return False


def _say(talk: socket.socket, message: dict[str, object], descriptors: list[int] | None = None) -> None:
    socket.send_fds(talk, [json.dumps(message).encode() + b"\n"], descriptors or [])


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
