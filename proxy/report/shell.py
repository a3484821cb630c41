"""Changes of an environment as statements of a shell, for `eval "$(borderpost env)"`."""

from __future__ import annotations

import shlex

from proxy.child import Environment


def statements(changes: Environment, language: str) -> list[str]:
    """`changes` in `sh` (and `bash`), `fish` or `powershell`."""
    if language == "powershell":
        return [f"Remove-Item Env:{name} -ErrorAction SilentlyContinue" for name in changes.unset] + [
            f"$env:{name} = {_powershell(value)}" for name, value in changes.set.items()
        ]
    if language == "fish":
        return [f"set -e {name}" for name in changes.unset] + [
            f"set -gx {name} {_fish(value)}" for name, value in changes.set.items()
        ]
    return [f"unset {' '.join(changes.unset)}"] + [
        f"export {name}={shlex.quote(value)}" for name, value in changes.set.items()
    ]


def _fish(value: str) -> str:
    """fish knows two escapes within single quotes."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell(value: str) -> str:
    """PowerShell knows one escape within single quotes."""
    return "'" + value.replace("'", "''") + "'"
