"""What the calls of a model used, and what that costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from unigap.models.protocol import Sampling

Used = Mapping[str, float]
"""Of one reply, as far as it says: `prompt_tokens`, `tokens` (all that were written), `reasoning_tokens`, `cost`."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a server charges, in the user's own unit of money; None is not known."""

    prompt: float | None = None
    """Of a million tokens that are read."""
    output: float | None = None
    """Of a million tokens that are written, thoughts too."""
    picture: float | None = None
    """Of a drawing, whose tokens then cost nothing; None charges drawings by their tokens."""

    @classmethod
    def parse(cls, tokens: str | None, picture: str | None) -> "Prices":
        """Prices from "IN/OUT" and a number.

        Raises:
            ValueError: Not of that form, or negative.
        """
        if tokens is None:
            return cls(picture=None if picture is None else _price(picture))
        prompt, slash, output = tokens.partition("/")
        if not slash:
            raise ValueError(f"price is IN/OUT for a million tokens, e.g. price=0.5/2; got {tokens!r}")
        return cls(prompt=_price(prompt), output=_price(output), picture=None if picture is None else _price(picture))

    @property
    def known(self) -> bool:
        return self.prompt is not None or self.picture is not None

    def of_text(self, used: Used) -> float | None:
        """What a reply of text cost; None if that cannot be said."""
        if self.prompt is None or self.output is None:
            return None
        total = 0.0
        for rate, name in ((self.prompt, "prompt_tokens"), (self.output, "tokens")):
            if rate and name not in used:
                return None
            total += rate * used.get(name, 0.0) / 1e6
        return total

    def of_drawing(self, used: Used, *, picture: bool) -> float | None:
        """What a reply to a drawing request cost, with or without a picture; None if that cannot be said."""
        return self.of_text(used) if self.picture is None else self.picture * picture


@runtime_checkable
class Charging(Protocol):
    """A model whose calls have prices, and of which only so many run at once."""

    prices: Prices
    concurrency: int
    sampling: Sampling


def sum_up(replies: Sequence[Used], prices: Prices, *, answered: bool, picture: bool | None = None) -> dict[str, float]:
    """One call's usage from that of all its replies, in order.

    Args:
        answered: Whether the last reply was used; the earlier ones, or else all, were in vain.
        picture: Whether a picture came; None for a call that asks for text.

    Returns:
        The last reply's counts, those of replies in vain as `retried_...`, and the `cost` of all, which is absent if
        that of one is not known. A cost that the server itself states goes before the prices.
    """
    vain = list(replies)
    used: Used = {}
    if answered:
        used = vain.pop()
    usage = {name: number for name, number in used.items() if name != "cost"}
    for name in ("prompt_tokens", "tokens"):
        if lost := [reply[name] for reply in vain if name in reply]:
            usage[f"retried_{name}"] = sum(lost)
    costs = [_cost(reply, prices, picture=None if picture is None else False) for reply in vain]
    costs += [_cost(used, prices, picture=picture)] if answered else []
    known = [cost for cost in costs if cost is not None]
    if known and len(known) == len(costs):
        usage["cost"] = sum(known)
    return usage


def _cost(used: Used, prices: Prices, *, picture: bool | None) -> float | None:
    if "cost" in used:
        return used["cost"]
    return prices.of_text(used) if picture is None else prices.of_drawing(used, picture=picture)


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise ValueError(f"a price is a number, 0 or more; got {text!r}")
    return price
