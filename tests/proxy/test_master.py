"""The engine's options: what a deployment must not differ in is set, and verified before the first connection."""

from __future__ import annotations

from typing import Any

import mitmproxy.ctx
import pytest
from mitmproxy import options

from proxy.master import SECURITY_OPTIONS, MasterError, verify

RULES = "version: 1\nrules:\n  - {id: look, match: 'GET {origin}/**', allow: true}\n"


async def test_every_security_option_has_its_value_in_a_running_proxy(world: Any) -> None:
    await world(RULES)
    running = mitmproxy.ctx.options
    assert {name: getattr(running, name) for name in SECURITY_OPTIONS if name in running} == {
        name: value for name, value in SECURITY_OPTIONS.items() if name in running
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("ignore_hosts", [".*"]), ("rawtcp", True), ("ssl_insecure", True), ("http3", True), ("tcp_hosts", ["x"])],
)
def test_an_option_that_differs_is_refused(name: str, value: object) -> None:
    opts = options.Options()
    for known, wanted in SECURITY_OPTIONS.items():
        if known in opts:
            setattr(opts, known, wanted)
    verify(opts)
    setattr(opts, name, value)
    with pytest.raises(MasterError, match=name):
        verify(opts)


async def test_a_config_file_in_the_confdir_changes_nothing(world: Any, tmp_path: Any) -> None:
    confdir = tmp_path / "confdir"
    confdir.mkdir(mode=0o700)
    (confdir / "config.yaml").write_text("ignore_hosts: ['.*']\nssl_insecure: true\n")
    here = await world(RULES)
    async with here.client() as client:
        refused = await client.post("/x", content=b"x")
    assert refused.status_code == 403
    assert here.upstream.connections == 0
