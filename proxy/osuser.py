"""Who runs this process, as the system knows it: the environment can say anything."""

from __future__ import annotations

import os
import pwd


def os_user() -> str:
    """The user's name, or the number where there is no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
