"""How a platform should be, whoever provides it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlatformOptions:
    """
    Args:
        models: ``real`` small models, or ``stub`` servers in their place.
        limits: ``strict`` as promised (SPEC 1.5), or ``demo``, a hundred times that (SPEC D18).
        nodes: how many nodes a provider with nodes makes.
        owner: process whose end is the platform's end too, however it ends; none for a platform that stays.
    """

    models: str = "real"
    limits: str = "demo"
    nodes: int = 3
    owner: int | None = None
