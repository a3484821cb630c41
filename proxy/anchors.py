"""Checkpoints outside of the ledger: files that are kept elsewhere, and the keys that check them, if they are here."""

from __future__ import annotations

import os
from pathlib import Path

from proxy.confdir import Confdir, reason
from proxy.ledger.entries import LedgerError
from proxy.ledger.note import Note, NoteError, Signer, Verifier, parse_note, parse_verifier
from proxy.ledger.vault import Vault


def read(path: Path) -> Note:
    """The checkpoint in `path`. Raises `LedgerError` when there is none."""
    try:
        return parse_note(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(f"cannot read the anchor `{path}`: {reason(error)}") from None
    except (NoteError, UnicodeDecodeError) as error:
        what = error if isinstance(error, NoteError) else "this is no checkpoint"
        raise LedgerError(f"cannot use the anchor `{path}`: {what}") from None


def write(path: Path, note: str) -> None:
    """Write the checkpoint `note` into `path`, whole or not at all. Raises `LedgerError` when that cannot be done."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(note, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise LedgerError(f"cannot write `{path}`: {reason(error)}") from None


def public_key(given: str | None, confdir: Path) -> Verifier | bytes | None:
    """The key that checks checkpoints: the one that was `given`, else the confdir's; None when it has none."""
    if given is not None:
        try:
            return parse_verifier(given)
        except NoteError as error:
            raise LedgerError(f"cannot use `{given}` as `--key`: {error}") from None
    if not (confdir / "signing.key").exists():
        return None
    return Signer(Confdir.open(confdir).signing_key).verifier("").public


def vault(confdir: Path) -> Vault | None:
    """The vault whose keys lie in `confdir`; None when there are none: to check, none are made."""
    return Vault.of(Confdir.open(confdir)) if (confdir / "vault.key").exists() else None
