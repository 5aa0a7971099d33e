"""Judges by name: `find_judge("exact")`, or a class of yours by "their.module:Class"."""

import importlib

from unigap.errors import UnknownNameError
from unigap.judges.protocol import Judge

JUDGES: dict[str, str] = {"exact": "unigap.judges.exact:ExactJudge"}
"""Name -> "module:class", imported on use. A class is made without arguments."""


def find_judge(name: str) -> Judge:
    """Make a judge by its name in the table, or by "their.module:Class".

    Raises:
        UnknownNameError: No table entry and no importable class of that name.
    """
    module, _, attribute = JUDGES.get(name, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        if name in JUDGES:
            raise
        raise UnknownNameError("judge", name, (*JUDGES, "their.module:Class")) from error
