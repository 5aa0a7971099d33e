"""Instructions given to models, one file each, so that a run's identity can hold their hash."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from unigap.errors import UnknownNameError
from unigap.items import Direction

THINK_PROMPTS = ("plan", "careful", "knowledge")
"""plan: work it out, then describe the picture. careful: understand the request first. knowledge: recall the facts."""


@dataclass(frozen=True, kw_only=True)
class ThinkPrompt:
    """How a model is told to think."""

    name: str
    generation: str
    understanding: str
    refine: str
    """Asks for a refined prompt when a thought has no usable last line."""

    def of(self, direction: Direction) -> str:
        return self.generation if direction == "generation" else self.understanding

    @property
    def sha256(self) -> str:
        """Of the texts, not of the name."""
        digest = hashlib.sha256()
        for text in (self.generation, self.understanding, self.refine):
            digest.update(hashlib.sha256(text.encode()).digest())
        return digest.hexdigest()


def find_think_prompt(name: str) -> ThinkPrompt:
    """A think prompt by name, or the text of a file, used in both directions.

    Raises:
        UnknownNameError: Neither a known name nor a readable text file.
    """
    refine = read_prompt("refine.txt")
    if name in THINK_PROMPTS:
        generation, understanding = (read_prompt(f"think/{name}.{way}.txt") for way in ("generation", "understanding"))
        return ThinkPrompt(name=name, generation=generation, understanding=understanding, refine=refine)
    try:
        text = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        raise UnknownNameError("think prompt", name, (*THINK_PROMPTS, "the path of a text file")) from None
    return ThinkPrompt(name=name, generation=text, understanding=text, refine=refine)


def read_prompt(path: str) -> str:
    """The text of a file in this folder, e.g. "think/plan.generation.txt"."""
    return (resources.files("unigap.prompts") / path).read_text(encoding="utf-8").strip()
