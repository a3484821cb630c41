"""The confdir: owner only, keys made once and whole, hashes that are worthless without them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.confdir import Confdir, ConfdirError, default_confdir, default_ledger_path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_confdir_and_its_keys_are_for_the_owner_only(tmp_path: Path) -> None:
    confdir = Confdir.open(tmp_path / "not" / "there")
    assert mode(confdir.path) == 0o700
    assert list(confdir.path.iterdir()) == []
    keys = {confdir.hash_key, confdir.vault_key, confdir.signing_key}
    assert [len(key) for key in keys] == [32, 32, 32]
    assert sorted(file.name for file in confdir.path.iterdir()) == ["hash.key", "signing.key", "vault.key"]
    assert {mode(file) for file in confdir.path.iterdir()} == {0o600}


def test_keys_stay_the_same(tmp_path: Path) -> None:
    first, again = Confdir.open(tmp_path / "c"), Confdir.open(tmp_path / "c")
    assert (first.hash_key, first.vault_key) == (again.hash_key, again.vault_key)
    assert first.hash_secret(b"sk_live_1") == again.hash_secret(b"sk_live_1")


def test_of_many_that_make_a_key_at_once_one_wins(tmp_path: Path) -> None:
    Confdir.open(tmp_path / "c")
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: Confdir.open(tmp_path / "c").hash_key, range(64)))
    assert len(keys) == 1
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["hash.key"]


def test_a_hash_depends_on_secret_and_key(tmp_path: Path) -> None:
    one, other = Confdir.open(tmp_path / "1"), Confdir.open(tmp_path / "2")
    hashes = {one.hash_secret(b"a"), one.hash_secret(b"b"), other.hash_secret(b"a")}
    assert len(hashes) == 3
    assert {len(bytes.fromhex(text)) for text in hashes} == {16}
    assert one.key_id != other.key_id
    assert one.key_id not in hashes


@pytest.mark.parametrize("others", [0o750, 0o705, 0o701, 0o720])
def test_a_confdir_that_others_can_reach_into_is_refused(tmp_path: Path, others: int) -> None:
    path = tmp_path / "c"
    path.mkdir()
    path.chmod(others)
    with pytest.raises(ConfdirError, match=f"run `chmod 700 {path}`"):
        Confdir.open(path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    confdir = Confdir.open(tmp_path / "c")
    assert confdir.hash_key
    (confdir.path / "hash.key").chmod(0o640)
    with pytest.raises(ConfdirError, match=r"run `chmod 600 .*hash\.key`"):
        _ = Confdir.open(confdir.path).hash_key


def test_a_key_that_was_cut_is_refused_and_not_replaced(tmp_path: Path) -> None:
    confdir = Confdir.open(tmp_path / "c")
    assert confdir.vault_key
    (confdir.path / "vault.key").write_bytes(b"short")
    with pytest.raises(ConfdirError, match="is not a key of 32 bytes"):
        _ = Confdir.open(confdir.path).vault_key
    assert (confdir.path / "vault.key").read_bytes() == b"short"


def test_a_confdir_that_cannot_be_made_is_one_line_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfdirError, match="not a directory; give another one with `--confdir`") as caught:
        Confdir.open(tmp_path / "file" / "c")
    assert "\n" not in str(caught.value)


PLACES = [
    ("linux", {"HOME": "/h"}, "/h/.config/borderpost", "/h/.local/share/borderpost/ledger.db"),
    (
        "linux",
        {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d"},
        "/c/borderpost",
        "/d/borderpost/ledger.db",
    ),
    (
        "linux",
        {"HOME": "/h", "XDG_CONFIG_HOME": "relative", "XDG_DATA_HOME": ""},
        "/h/.config/borderpost",
        "/h/.local/share/borderpost/ledger.db",
    ),
    (
        "darwin",
        {"HOME": "/h"},
        "/h/Library/Application Support/borderpost",
        "/h/Library/Application Support/borderpost/ledger.db",
    ),
    (
        "darwin",
        {"HOME": "/h", "XDG_DATA_HOME": "/d"},
        "/h/Library/Application Support/borderpost",
        "/d/borderpost/ledger.db",
    ),
]


@pytest.mark.parametrize(("platform", "environ", "confdir", "ledger"), PLACES)
def test_usual_places(platform: str, environ: dict[str, str], confdir: str, ledger: str) -> None:
    assert default_confdir(environ, platform) == Path(confdir)
    assert default_ledger_path(environ, platform) == Path(ledger)


def test_it_does_not_load_the_database() -> None:
    code = "import sys, proxy.confdir; print([name for name in ('sqlalchemy', 'mitmproxy') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
