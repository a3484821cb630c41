"""Changes of an environment as statements of a shell, run by that shell where there is one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from proxy.child import Environment
from proxy.report.shell import statements

NASTY = 'it\'s $HOME "a" \\n `x` 100%'
CHANGES = Environment({"BP_ONE": NASTY, "BP_TWO": ""}, ("BP_OLD",))
SHELLS = {
    "sh": ('printf "%s|" "$BP_ONE" "${BP_TWO-unset}" "${BP_OLD-unset}"', ["-c"]),
    "bash": ('printf "%s|" "$BP_ONE" "${BP_TWO-unset}" "${BP_OLD-unset}"', ["-c"]),
    "fish": ("printf '%s|' $BP_ONE; set -q BP_TWO; and printf '|'; set -q BP_OLD; or printf 'unset|'", ["-c"]),
    "powershell": ("'{0}|{1}|{2}|' -f $env:BP_ONE, $env:BP_TWO, ($env:BP_OLD ?? 'unset')", ["-NoProfile", "-Command"]),
}


@pytest.mark.parametrize("language", SHELLS)
def test_a_shell_reads_what_was_meant(language: str) -> None:
    program = shutil.which("pwsh" if language == "powershell" else language)
    if program is None:
        pytest.skip(f"there is no {language}")
    show, flags = SHELLS[language]
    script = "\n".join([*statements(CHANGES, language), show])
    done = subprocess.run([program, *flags, script], capture_output=True, text=True, env={"BP_OLD": "x"}, check=True)
    assert done.stdout.strip() == f"{NASTY}||unset|"


def test_powershell_in_words() -> None:
    assert statements(CHANGES, "powershell") == [
        "Remove-Item Env:BP_OLD -ErrorAction SilentlyContinue",
        "$env:BP_ONE = 'it''s $HOME \"a\" \\n `x` 100%'",
        "$env:BP_TWO = ''",
    ]
