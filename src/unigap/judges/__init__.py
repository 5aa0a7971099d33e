"""Judges by name: `find_judge("exact")`, or a class of yours by "their.module:Class"."""

import importlib

from unigap.errors import UnknownNameError
from unigap.judges.protocol import Judge

JUDGES: dict[str, str] = {"exact": "unigap.judges.exact:ExactJudge"}
"""Name -> "module:class", imported on use; made without arguments."""

REMOTE: dict[str, str] = {"rubric": "unigap.judges.rubric:RubricJudge", "vlm": "unigap.judges.vlm:VlmJudge"}
"""The same of judges that ask a model behind a URL, named with it: "NAME:MODEL@URL", made by `from_address`."""


def find_judge(name: str) -> Judge:
    """Make a judge by its name in the table, or by "their.module:Class".

    Raises:
        UnknownNameError: No table entry and no importable class of that name.
        ValueError: An address is not one.
    """
    kind, _, address = name.partition(":")
    known = kind in REMOTE or name in JUDGES
    module, _, attribute = (REMOTE | JUDGES).get(kind if kind in REMOTE else name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        if kind in REMOTE and getattr(error, "name", "") in ("openai", "httpx2"):
            raise ValueError('judges over HTTP need the extra "remote": pip install "unigap[remote]"') from None
        if known:
            raise
        raise UnknownNameError("judge", name, (*JUDGES, *REMOTE, "their.module:Class")) from error
    return found.from_address(address) if kind in REMOTE else found()
