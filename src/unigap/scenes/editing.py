"""Editing: a picture and a rule that changes what it holds; the answer is what it holds afterwards.

Every rule changes the picture, so a copy of it is wrong, and leaves exactly two kinds of objects, so an answer in text
has to name what it counts and is short enough to be given at once. Where the objects of the edited picture lie is free.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from unigap.items import Count, Counts, Item
from unigap.scenes import Chance, Draft, Fact, constant_rate, numbers_of
from unigap.scenes.render import place, scene_ref
from unigap.scenes.vocabulary import NUM_CELLS, NUMBER_WORDS, OBJECTS, counted, list_counts, plural

Action = Literal["replace", "remove all", "remove", "add", "match", "level"]

PHRASES: Final[Mapping[Action, tuple[str, ...]]] = {
    "replace": ("replace every {x} with {ny}", "turn every {x} into {ny}", "exchange each {x} for {ny}"),
    "remove all": ("remove all the {xs}", "take all the {xs} away", "delete every {x}"),
    "remove": ("remove {nx}", "take {nx} away", "delete {nx}"),
    "add": ("add {nx}", "put {nx} into the picture"),
    "match": ("add as many {xs} as there are {ys}", "add one {x} for every {y}", "put in one {x} for each {y}"),
    "level": (
        "remove {xs} until there are as many {xs} as {ys}",
        "take {xs} away until there are only as many {xs} as {ys}",
    ),
}
"""Ways to say an edit, as a command: {x} an object, {xs} its plural, {nx} so many of it, and the same for y."""
BECOMES: Final = "every {x} becomes {ny}"
"""Another way to say that objects are replaced; no command, so it is never joined with one."""

CONDITIONS: Final = (
    "if there are more {xs} than {ys}, {then}; otherwise, {otherwise}",
    "if the {xs} outnumber the {ys}, {then}; if not, {otherwise}",
    "in case there are more {xs} than {ys}, {then}; in any other case, {otherwise}",
)
SEQUENCES: Final = ("first {a}, then {b}", "{a}, and after that {b}", "{a} and then {b}")

FRAMES: Final = (
    (
        "Edit the picture by this rule: {rule}.",
        "The picture is edited by this rule: {rule}. How many of each object does it show then?",
    ),
    (
        "Apply this rule to the picture and draw the result: {rule}.",
        "This rule is applied to the picture: {rule}. How many of each object are in the result?",
    ),
    (
        "Change the picture as follows: {rule}. Draw what it shows afterwards.",
        "The picture is changed as follows: {rule}. Which objects does it show afterwards, and how many of each?",
    ),
    (
        "Rule: {rule}. Draw the picture after this rule has been applied to it.",
        "Rule: {rule}. How many of each object are in the picture after this rule has been applied to it?",
    ),
    (
        "Redraw the picture and follow this instruction: {rule}.",
        "The picture is redrawn by this instruction: {rule}. Count each kind of object that it shows then.",
    ),
    (
        "Draw how the picture looks once this is done to it: {rule}.",
        "How many of each object does the picture show once this is done to it: {rule}?",
    ),
    (
        "Make another version of the picture with this change: {rule}.",
        "Another version of the picture is made with this change: {rule}. How many of each object does it show?",
    ),
    (
        "Here is how to change the picture: {rule}. Draw the outcome.",
        "Here is how to change the picture: {rule}. How many of each object does the outcome show?",
    ),
    (
        "Carry this out on the picture: {rule}. Show what it then holds.",
        "Carry this out on the picture: {rule}. Which objects does it then hold, and how many of each?",
    ),
    (
        "Please change the picture in this way: {rule}.",
        "Suppose someone changes the picture in this way: {rule}. How many of each object are there then?",
    ),
)
"""(prompt, question) pairs around a rule."""

MOST: Final = 4
"""Most objects of a kind, given or left: what `plain` has of two kinds, no harder to draw."""


@dataclass(frozen=True)
class Edit:
    """One change of what a picture holds."""

    action: Action
    object: str
    """What is replaced, removed or added."""
    n: int = 0
    """How many are removed or added, or come in place of each one that is replaced."""
    other: str = ""
    """What comes in its place (replace), or whose number counts (match, level)."""

    def apply(self, counts: Mapping[str, int]) -> dict[str, int] | None:
        """The objects afterwards; None where the rule would make no sense."""
        after = Counter(counts)
        there, wanted = counts.get(self.object, 0), counts.get(self.other, 0)
        match self.action:
            case "replace" if there:
                del after[self.object]
                after[self.other] += there * self.n
            case "remove all" if there:
                del after[self.object]
            case "remove" if there > self.n:
                after[self.object] -= self.n
            case "add":
                after[self.object] += self.n
            case "match" if wanted:
                after[self.object] += wanted
            case "level" if there > wanted > 0:
                after[self.object] = wanted
            case _:
                return None
        return dict(after)

    def say(self, phrase: str) -> str:
        y = self.other or self.object
        return phrase.format(
            x=self.object, xs=plural(self.object), nx=_in_words(self.object, self.n),
            y=y, ys=plural(y), ny=_in_words(y, self.n),
        )  # fmt: skip

    def steps(self, counts: Mapping[str, int]) -> list[str]:
        """The working, one line an operation."""
        there, wanted = counts.get(self.object, 0), counts.get(self.other, 0)
        match self.action:
            case "replace":
                new = there * self.n
                lines = [f"{there} * {self.n} = {new} {plural(self.other)} for the {plural(self.object)}"]
                return [*lines, f"{wanted} + {new} = {wanted + new} {plural(self.other)}"] if wanted else lines
            case "remove all":
                return [f"no {plural(self.object)} are left"]
            case "remove":
                return [f"{there} - {self.n} = {counted(self.object, there - self.n)}"]
            case "add" | "match":
                added = self.n if self.action == "add" else wanted
                return [f"{there} + {added} = {counted(self.object, there + added)}"]
            case "level":
                return [f"as many {plural(self.object)} as {plural(self.other)}: {wanted}"]


def _in_words(name: str, n: int) -> str:
    """ "one cup", "three cups"."""
    return f"{NUMBER_WORDS[n]} {counted(name, n).partition(' ')[2]}"


@dataclass(frozen=True)
class Rule:
    """A rule for a given picture, worked out."""

    text: str
    key: str
    """The rule in its first wording."""
    after: Mapping[str, int]
    tempting: Mapping[str, int]
    """The wrong answer of one who skips the rule (the picture as it was) or takes the wrong branch."""
    steps: tuple[str, ...]


def _single(actions: Sequence[Action], counts: dict[str, int], rng: random.Random) -> Rule | None:
    edit = _random_edit(rng.choice(actions), counts, rng)
    after = edit.apply(counts)
    phrases = (*PHRASES[edit.action], *((BECOMES,) if edit.action == "replace" else ()))
    text, key = edit.say(rng.choice(phrases)), edit.say(phrases[0])
    return None if after is None else Rule(text, key, after, counts, tuple(edit.steps(counts)))


def _condition(counts: dict[str, int], rng: random.Random) -> Rule | None:
    """One of two edits, by which of two kinds there are more of."""
    if len(counts) < 2:
        return None
    x, y = rng.sample(sorted(counts), 2)
    edits = [_random_edit(rng.choice(get_args(Action)), counts, rng) for _ in range(2)]
    more = counts[x] > counts[y]
    taken, left = edits if more else edits[::-1]
    after, tempting = taken.apply(counts), left.apply(counts)
    if after is None or tempting is None:
        return None
    form = rng.choice(CONDITIONS)
    names = {"xs": plural(x), "ys": plural(y)}
    then, otherwise = (edit.say(rng.choice(PHRASES[edit.action])) for edit in edits)
    first, second = (edit.say(PHRASES[edit.action][0]) for edit in edits)
    compared = f"{counted(x, counts[x])} and {counted(y, counts[y])}: {'' if more else 'not '}more {plural(x)}"
    return Rule(
        form.format(then=then, otherwise=otherwise, **names),
        CONDITIONS[0].format(then=first, otherwise=second, **names),
        after,
        tempting,
        (compared, *taken.steps(counts)),
    )


def _sequence(counts: dict[str, int], rng: random.Random) -> Rule | None:
    """Two edits, the second of what the first leaves."""
    a = _random_edit(rng.choice(get_args(Action)), counts, rng)
    between = a.apply(counts)
    if not between:
        return None
    b = _random_edit(rng.choice(get_args(Action)), between, rng)
    after = b.apply(between)
    if after is None:
        return None
    first, second = (edit.say(rng.choice(PHRASES[edit.action])) for edit in (a, b))
    plain = (edit.say(PHRASES[edit.action][0]) for edit in (a, b))
    return Rule(
        rng.choice(SEQUENCES).format(a=first, b=second),
        SEQUENCES[0].format(**dict(zip("ab", plain))),
        after,
        counts,
        (*a.steps(counts), *b.steps(between)),
    )


def _random_edit(action: Action, counts: Mapping[str, int], rng: random.Random) -> Edit:
    """An edit of these objects; it may come out senseless, which `Edit.apply` says."""
    new = rng.choice([name for name in OBJECTS if name not in counts])
    x = rng.choice(sorted(counts))
    y = rng.choice([name for name in sorted(counts) if name != x] or [new])
    newer = rng.random() < 0.5
    match action:
        case "replace":
            return Edit(action, x, rng.randint(1, 3), new if newer else y)
        case "add":
            return Edit(action, new if newer else x, rng.randint(1, 3))
        case "match":
            return Edit(action, new if newer else y, other=x)
        case "level":
            return Edit(action, x, other=y)
        case "remove":
            return Edit(action, x, rng.randint(1, 3))
        case "remove all":
            return Edit(action, x)


SINGLE: Final[Mapping[str, tuple[Action, ...]]] = {
    "replace": ("replace",),
    "remove": ("remove all", "remove", "level"),
    "add": ("add", "match", "match"),
}
VARIANTS: Final = (*SINGLE, "condition", "sequence")


def _random_rule(variant: str, given: dict[str, int], rng: random.Random) -> Rule | None:
    if variant == "condition":
        return _condition(given, rng)
    return _sequence(given, rng) if variant == "sequence" else _single(SINGLE[variant], given, rng)


def _usable(given: Mapping[str, int], rule: Rule) -> bool:
    """Whether there is a change, a picture of each outcome, and an answer of two kinds."""
    fits = all(1 <= sum(counts.values()) <= NUM_CELLS for counts in (given, rule.after, rule.tempting))
    short = len(rule.after) == 2 and max(rule.after.values()) <= MOST
    return fits and short and rule.after not in (given, rule.tempting)


class Editing:
    """One to three kinds of objects in the given picture, two in the edited one."""

    name = "editing"
    test_share = 0.2

    def sample(self, rng: random.Random) -> Fact:
        variant = rng.choice(VARIANTS)
        while True:
            names = sorted(rng.sample(OBJECTS, rng.randint(1, 3)), key=OBJECTS.index)
            given = {name: rng.randint(1, MOST) for name in names}
            rule = _random_rule(variant, given, rng)
            if rule and _usable(given, rule):
                break
        picture = (scene_ref(place(given, rng)),)
        prompt, question = rng.choice(FRAMES)
        caption = list_counts(dict(rule.after))
        draft = Draft(
            question=question.format(rule=rule.text),
            prompt=prompt.format(rule=rule.text),
            caption=caption,
            answer=_answer(rule.after),
            other=_answer(rule.tempting),
            images=picture,
            prompt_images=picture,
            variant=variant,
            thought="\n".join((f"in the picture: {list_counts(given)}", *rule.steps, f"Draw {caption}.")),
        )
        return Fact(key=f"{list_counts(given)}: {rule.key}", drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(constant_rate(self, items, numbers_of), "right objects, best constant numbers per variant")


def _answer(counts: Mapping[str, int]) -> Count | Counts:
    ordered = {name: counts[name] for name in sorted(counts, key=OBJECTS.index)}
    if len(ordered) == 1:
        ((name, n),) = ordered.items()
        return Count(object=name, n=n)
    return Counts(counts=ordered)


EDITING = Editing()
