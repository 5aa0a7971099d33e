"""Which rubric an item is graded by (`unigap.judges.rubric`), as tables. Needs no HTTP client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from unigap.benchmarks.gapeval import category_key, is_choice
from unigap.items import Direction, FreeText, Item


@dataclass(frozen=True)
class Rubric:
    """How one kind of task is graded."""

    text: str
    """prompts/judges/rubric/NAME.text.txt"""
    picture: str
    """prompts/judges/rubric/NAME.picture.txt"""
    copies: Literal["", "exact", "near"] = ""
    """Which copies of a picture that is shown beside it are wrong whatever they show. near: the judge is asked too."""
    options: bool = False
    """A choice: the judge is also asked whether the picture agrees with the text."""

    def name(self, direction: Direction) -> str:
        return self.text if direction == "understanding" else self.picture


def _same(name: str, copies: Literal["exact", "near"] = "exact", *, options: bool = False) -> Rubric:
    return Rubric(name, name, copies, options)


CHOICE: Final = _same("choice", options=True)
RUBRICS: Final[Mapping[str, Rubric]] = {
    "counting": _same("counting", "near"), "numerical_perception": _same("counting", "near"),
    "rule_based": _same("rule", "near"),
    "multi_hop": _same("multihop", "near"), "world_knowledge": _same("multihop", "near"),
    "animal": _same("animal"), "cartoon": _same("cartoon"),
    "celebrity": _same("celebrity"), "landmark": _same("landmark"),
    "physics": _same("physics"),
    "reasoning": _same("draw"), "chess": _same("draw"), "plants": _same("draw"), "animals": _same("draw"),
    "edit": _same("edit"), "edit_instruction_following": _same("edit"), "instruction_following": _same("edit"),
}  # fmt: skip
"""Category of a GapEval item, by `category_key` -> rubric. A choice within "reasoning" is CHOICE (`is_choice`)."""

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "reasoning": ("physics",),
    "world_knowledge": ("multi_hop", "animal", "cartoon", "celebrity", "landmark"),
}
"""Category -> words of it, or of its subcategory, that name the rubric more closely."""

OWN: Final[Mapping[str, Rubric]] = {
    "editing": Rubric("counting", "contents", "exact"),
    "amounts": Rubric("counting", "contents", "exact"),
    "counting": Rubric("counting", "contents"),  # the same picture again has the right counts
    "multihop": Rubric("multihop", "contents"),
    "choice": Rubric("choice", "contents", options=True),
}
"""Family of an item whose answer is typed, in the sense of `unigap.items` -> rubric. Others of that kind: TYPED."""

TYPED: Final = Rubric("meaning", "contents")
DEFAULT: Final = Rubric("meaning", "meaning")
"""Of an answer in free words, from a source without categories or with one that the table lacks."""


def find_rubric(item: Item) -> Rubric:
    """The rubric of an item: by category if its variant is "category: subcategory", else by family."""
    category, colon, subcategory = item.variant.partition(":")
    if not colon:
        free = isinstance(item.answer, FreeText)
        return RUBRICS.get(category_key(item.family), DEFAULT) if free else OWN.get(item.family, TYPED)
    if is_choice(item):
        return CHOICE
    key, kind = category_key(category), category_key(f"{category} {subcategory}")
    group = next((group for group in KINDS if key.startswith(group)), "")
    closer = next((word for word in KINDS.get(group, ()) if word in kind), group or key)
    return RUBRICS.get(closer, DEFAULT)
