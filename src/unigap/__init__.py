"""Measure, explain and close the gap between what a unified multimodal model understands and what it can draw.

Names below are imported on first use, so that `import unigap` stays fast and needs no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unigap.benchmarks.unisandbox import read_unisandbox as read_unisandbox
    from unigap.items import Item as Item
    from unigap.items import read_items as read_items
    from unigap.items import write_items as write_items
    from unigap.models import find_model as find_model
    from unigap.scenes import make_items as make_items

__version__ = "0.1.0"

_HOME = {
    "Item": "unigap.items",
    "find_model": "unigap.models",
    "make_items": "unigap.scenes",
    "read_items": "unigap.items",
    "read_unisandbox": "unigap.benchmarks.unisandbox",
    "write_items": "unigap.items",
}

__all__ = ["Item", "__version__", "find_model", "make_items", "read_items", "read_unisandbox", "write_items"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'unigap' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
