"""What the tokens of a model cost, in US dollars: the one place that asks genai-prices, the extra `prices`.

Its prices come with its package, so the same version gives the same cost; nothing is fetched. The boot entry of the
ledger names the version.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta  # noqa: TID251 -- arithmetic only: the moment is an argument
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from rules.amounts import bounded
from rules.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

MISSING = "`sum: cost` needs prices, which are not installed"
INSTALL = "install them: `uv tool install 'borderpost[prices]'`, or `pip install 'borderpost[prices]'`"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLION = Decimal(1_000_000)


class Price(msgspec.Struct, frozen=True):
    """What a rule says that tokens cost: US dollars for a million of the question, and for a million of the answer."""

    input: Decimal
    output: Decimal

    def of(self, usage: Usage) -> Decimal:
        """The cost of `usage`."""
        return bounded((self.input * usage.input + self.output * usage.output) / _MILLION)


def installed() -> bool:
    """Whether there are prices."""
    try:
        import genai_prices  # noqa: F401
    except ImportError:
        return False
    return True


def known(model: str, url: str) -> bool:
    """Whether somebody knows what `model` at `url` costs. `url` may be empty."""
    return _find(model, url) is not None


def cost(usage: Usage, model: str, url: str, at_ns: int) -> Decimal | None:
    """What `usage` of `model` at `url` costs at that moment; None when nobody knows."""
    found = _find(model, url)
    if found is None:
        return None
    from genai_prices import Usage as Counted

    provider, priced = found
    counted = Counted(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        cache_write_1h_tokens=usage.cache_write_1h,
    )
    tier = {"service_tier": usage.tier} if usage.tier else None
    at = _EPOCH + timedelta(microseconds=at_ns // 1000)
    return bounded(priced.calc_price(counted, provider, genai_request_timestamp=at, price_context=tier).total_price)


@lru_cache(maxsize=1024)
def _find(model: str, url: str) -> tuple[Provider, ModelInfo] | None:
    """Whose model it is. At an address that is not known, the name of the model has to do.

    The library remembers every name that it was ever asked for, and names come from agents: so it is asked anew.
    """
    from genai_prices.data_snapshot import DataSnapshot, get_snapshot

    for place in (url, None) if url else (None,):
        snapshot = DataSnapshot(get_snapshot().providers, from_auto_update=False, timestamp=_EPOCH)
        try:
            return snapshot.find_provider_model(model, None, None, place)
        except LookupError:
            continue
    return None
