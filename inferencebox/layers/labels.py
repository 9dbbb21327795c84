"""The labels by which objects of a platform are known in its cluster."""

from collections.abc import Mapping
from typing import Any

LAYER = "inference-in-a-box/layer"
"""On every object that we make; its value is the layer."""
INSTANCE = "inference-in-a-box/instance"
"""On every object that we make; its value is the platform's name. What has it is removed with the platform."""
BORROWED = "inference-in-a-box/borrowed-by"
"""On namespaces of others that carry labels of ours for the time that the platform is there; its value is its name."""


def owner_of(found: Mapping[str, Any]) -> str:
    """The platform that made an object; empty for what others made."""
    return str((found["metadata"].get("labels") or {}).get(INSTANCE, ""))
