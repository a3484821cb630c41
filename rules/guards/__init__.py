"""The guards that rule files may name. A new guard is one new file here and one line below."""

from __future__ import annotations
