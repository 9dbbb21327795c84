"""The price list: a file, so that a price is changed by whoever keeps the prices."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from chargeback.errors import SetupProblem
from chargeback.ledger import Usage


@dataclass(frozen=True)
class Price:
    """What one of each costs, in the list's currency."""

    request: float = 0.0
    thousand_tokens: float = 0.0
    cpu_second: float = 0.0

    def of(self, usage: Usage) -> float:
        return (
            self.request * usage.requests
            + self.thousand_tokens * usage.tokens / 1000
            + self.cpu_second * usage.cpu_seconds
        )


@dataclass(frozen=True)
class Prices:
    """The price of every model: the default, with what differs for a model (``tenant/model``)."""

    currency: str
    default: Price
    models: Mapping[str, Price] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Prices":
        """
        Raises:
            SetupProblem: the file can't be read or is no price list.
        """
        try:
            content = yaml.safe_load(path.read_text())
            default = _price(Price(), content["default"])
            models = {name: _price(default, each) for name, each in (content.get("models") or {}).items()}
            return cls(str(content["currency"]), default, models)
        except OSError as problem:
            raise SetupProblem(f"{path} cannot be read: {problem.strerror}") from None
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as problem:
            raise SetupProblem(f"{path} is no price list: {' '.join(str(problem).split())}") from None

    def of(self, tenant: str, model: str) -> Price:
        return self.models.get(f"{tenant}/{model}", self.default)


def _price(base: Price, content: Mapping[str, Any]) -> Price:
    price = replace(base, **{name: float(value) for name, value in content.items()})
    if min(price.request, price.thousand_tokens, price.cpu_second) < 0:
        raise ValueError("a price is below zero")
    return price
