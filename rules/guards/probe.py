"""A pause, and the probe after it: one call goes first, and the others follow its answer.

Cool-downs, open circuits and stopped loops end so. A probe that takes too long no longer keeps the others waiting.
"""

from __future__ import annotations

import msgspec

from rules.state import SetBack
from rules.units import SECOND_NS

PROBE_NS = 10 * SECOND_NS
"""So long the others wait for the answer to the first call after a pause."""


class Pause(msgspec.Struct):
    """Until when calls pause; then `probe` is the call that goes first, and `probe_until_ns` how long it may take."""

    until_ns: int
    probe: str = ""
    probe_until_ns: int = 0

    def left_ns(self, now_ns: int) -> int:
        """How long a call has to wait; 0 when it may go, as the probe."""
        return max((self.until_ns if now_ns < self.until_ns else self.probe_until_ns) - now_ns, 0)

    def send(self, call_id: str, until_ns: int) -> None:
        """The call `call_id` goes first."""
        self.probe, self.probe_until_ns = call_id, until_ns

    def lose(self) -> None:
        """The probe has told nothing: another one may go."""
        self.probe, self.probe_until_ns = "", 0

    def set_back(self, clock: SetBack) -> None:
        self.until_ns = clock.moved(self.until_ns)
        self.probe_until_ns = clock.moved(self.probe_until_ns)
