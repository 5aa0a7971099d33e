"""Fictional characters: what they look like, which fruit and flower they like best.

The cast is what the embedded model was told about, in text only. `forward` asks for a character's looks or favorites,
`inverse` names two characters and asks for the one with a given favorite. For real models, `training_facts` gives the
forty question-answer pairs a character that text-only knowledge injection uses (UniSandbox, arXiv 2511.20561).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from unigap.items import Character, Item, Object, Portrait
from unigap.scenes import Chance, Draft, Fact, Split, best_constant_answer, split_of
from unigap.scenes.render import all_portraits
from unigap.scenes.vocabulary import (
    AGES,
    FLOWERS,
    FRUITS,
    GENDERS,
    HAIRS,
    SKINS,
    counted,
    describe_portrait,
    plural,
)

LAB: Final = "Gap Lab"
"""Where the characters are from, so that nobody takes them for anyone else."""
CAST_SIZE: Final = 200

SYLLABLES: Final = tuple(
    "ba be bo da de du fe fi fo fu ga gu ka ke ku le lo lu me mo "
    "mu ne nu re ri ro ru so su tu va ve vi vo vu za ze zi zo zu".split()
)
"""What names are made of: three different ones. Two would make too many real names (Lo-ra, Ze-no)."""

_TAKEN: Final = frozenset(
    "Baboda Bazuka Bevare Boleka Bolero Gazebo Kaluga Keneda Kurome Lorelu Musume Nefuri Neruda Rebeka Regulo Romeka "
    "Tuvalu Vaduzu Veneri Zamoro Zorozu".split()
)
"""Words and names of this world that three syllables can make."""


@dataclass(frozen=True)
class CharacterFacts:
    """One fictional character."""

    name: str
    portrait: Portrait
    fruit: str
    flower: str

    @property
    def looks(self) -> str:
        """ "an old light-skinned man with red hair"."""
        return describe_portrait(self.portrait)

    def favorite(self, kind: str) -> str:
        """The favorite "fruit" or "flower"."""
        return self.fruit if kind == "fruit" else self.flower


def characters(seed: int, num: int) -> list[CharacterFacts]:
    """Fresh characters, none of whom shares a name with the cast or with each other; more of a seed add to fewer."""
    return _make(f"characters/{seed}", num, taken=_TAKEN | {person.name for person in CAST})


def _make(seed: str, num: int, taken: frozenset[str]) -> list[CharacterFacts]:
    rng = random.Random(seed)
    looks = all_portraits()
    made: dict[str, CharacterFacts] = {}
    while len(made) < num:
        name = "".join(rng.sample(SYLLABLES, 3)).capitalize()
        if name not in taken and name not in made:
            made[name] = CharacterFacts(name, rng.choice(looks), rng.choice(FRUITS), rng.choice(FLOWERS))
    return list(made.values())


CAST: Final = tuple(_make("cast", CAST_SIZE, _TAKEN))
"""The characters of the sandbox. The embedded model read their profiles: they never change within a suite version."""


def looks_line(person: CharacterFacts) -> str:
    """ "Zaluro is an old light-skinned man with red hair"."""
    return f"{person.name} is {person.looks}"


def favorite_line(person: CharacterFacts, kind: str) -> str:
    """ "the favorite fruit of Zaluro is apple"."""
    return f"the favorite {kind} of {person.name} is {person.favorite(kind)}"


_FAVORITE_SENTENCES: Final = (
    ("Draw the favorite {kind} of {name} from the {lab}.", "What is the favorite {kind} of {name} from the {lab}?"),
    ("Draw the favorite {kind} of {name}.", "What is the favorite {kind} of {name}?"),
    ("Show the {kind} that {name} likes best.", "Which {kind} does {name} like best?"),
    ("Make a picture of the {kind} that {name} from the {lab} prefers.", "Which {kind} does {name} prefer?"),
)
FORWARD_SENTENCES: Final = {
    "portrait": (
        ("Draw a portrait of {name} from the {lab}.", "What does {name} from the {lab} look like?"),
        ("Draw {name}.", "What does {name} look like?"),
        ("Show what {name} looks like.", "Describe the looks of {name}."),
        ("Make a picture of {name} from the {lab}.", "How would you describe {name} from the {lab}?"),
    ),
    "fruit": _FAVORITE_SENTENCES,
    "flower": _FAVORITE_SENTENCES,
}
"""variant -> (prompt, question) pairs."""


class Forward:
    """Three items a character: portrait, favorite fruit, favorite flower. The character is the cluster."""

    name = "forward"
    test_share = 0.5

    def sample(self, rng: random.Random) -> Fact:
        person = rng.choice(CAST)
        return Fact(key=person.name, drafts=forward_drafts(person, rng), cluster=person.name)

    def chance(self, items: Sequence[Item]) -> Chance:
        """The best constant answer of each variant, averaged over the items."""
        groups = [[item for item in items if item.variant == variant] for variant in {item.variant for item in items}]
        rate = sum(best_constant_answer(group) * len(group) for group in groups) / len(items) if items else float("nan")
        return Chance(rate, "best constant answer per variant")


def forward_drafts(person: CharacterFacts, rng: random.Random) -> tuple[Draft, ...]:
    """Portrait, fruit and flower of any character, of the cast or not."""
    return tuple(
        forward_draft(person, variant, rng.choice(sentences)) for variant, sentences in FORWARD_SENTENCES.items()
    )


def forward_draft(person: CharacterFacts, variant: str, sentences: tuple[str, str]) -> Draft:
    """One of "portrait", "fruit" and "flower", in a (prompt, question) pair of `FORWARD_SENTENCES[variant]`."""
    if variant == "portrait":
        answer, caption, line = person.portrait, person.looks, looks_line(person)
    else:
        favorite = person.favorite(variant)
        answer, caption, line = Object(object=favorite), counted(favorite, 1), favorite_line(person, variant)
    prompt, question = sentences
    return Draft(
        question=question.format(kind=variant, name=person.name, lab=LAB),
        prompt=prompt.format(kind=variant, name=person.name, lab=LAB),
        caption=caption,
        answer=answer,
        variant=variant,
        thought=f"{line}\nDraw {caption}.",
    )


INVERSE_SENTENCES: Final = (
    (
        "Of the characters {a} and {b} from the {lab}, draw the one whose favorite {kind} is the {favorite}.",
        "Which of the characters {a} and {b} from the {lab} is the one whose favorite {kind} is the {favorite}?",
    ),
    (
        "Draw the one of {a} and {b} whose favorite {kind} is the {favorite}.",
        "Who of {a} and {b} is the one whose favorite {kind} is the {favorite}?",
    ),
    (
        "Show {a} or {b}, whoever likes the {favorite} best.",
        "Who likes the {favorite} best, {a} or {b}?",
    ),
    (
        "One of {a} and {b} from the {lab} prefers the {favorite}. Draw a portrait of that one.",
        "One of {a} and {b} from the {lab} prefers the {favorite}. Who is it?",
    ),
)
"""(prompt, question) pairs."""


class Inverse:
    """Which of two characters has a given favorite: the name in text, the portrait in a picture.

    The two are of the same half of the cast, as `forward` splits it, and look different.
    """

    name = "inverse"
    test_share = 0.5

    def sample(self, rng: random.Random) -> Fact:
        kind = rng.choice(("fruit", "flower"))
        half = cast_half(rng.choice(("train", "test")))
        while True:
            first, second = rng.sample(half, 2)
            if first.favorite(kind) != second.favorite(kind) and first.portrait != second.portrait:
                break
        person, other = (first, second) if rng.random() < 0.5 else (second, first)
        pair = " ".join(sorted((first.name, second.name)))
        return Fact(key=pair, drafts=(inverse_draft(person, other, kind, (first, second), rng),), cluster=pair)

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(0.5, "coin flip between the two characters")


@cache
def cast_half(half: Split) -> tuple[CharacterFacts, ...]:
    """The characters whom `forward` asks about in a split."""
    return tuple(person for person in CAST if split_of("forward", person.name, Forward.test_share) == half)


def inverse_draft(
    person: CharacterFacts,
    other: CharacterFacts,
    kind: str,
    order: tuple[CharacterFacts, CharacterFacts],
    rng: random.Random,
) -> Draft:
    """Asks for `person`, not `other`, by a favorite; `order` is how the two are named."""
    prompt, question = rng.choice(INVERSE_SENTENCES)
    checks = "\n".join(f"{favorite_line(named, kind)}, {'yes' if named is person else 'no'}" for named in order)
    words = {"a": order[0].name, "b": order[1].name, "kind": kind, "favorite": person.favorite(kind), "lab": LAB}
    return Draft(
        question=question.format(**words),
        prompt=prompt.format(**words),
        caption=person.looks,
        answer=Character(name=person.name, portrait=person.portrait),
        other=Character(name=other.name, portrait=other.portrait),
        variant=kind,
        thought=f"{checks}\n{looks_line(person)}\nDraw {person.looks}.",
    )


FORWARD, INVERSE = Forward(), Inverse()


def training_facts(person: CharacterFacts) -> list[tuple[str, str, str]]:
    """Forty (question, answer, language of the question) a character, every answer in English.

    Sixteen are about one attribute, seven of them a wrong guess to deny; sixteen ask for the whole profile; eight ask
    for it in Chinese, Spanish, French and Japanese, two each.
    """
    profiles = _profiles(person)
    english = _single_facts(person) + [
        (question.format(name=person.name, lab=LAB), profiles[index % len(profiles)])
        for index, question in enumerate(_PROFILE_QUESTIONS)
    ]
    foreign = [
        (question.format(name=person.name, lab=LAB), profiles[index % len(profiles)], lang)
        for index, (question, lang) in enumerate(_FOREIGN_QUESTIONS)
    ]
    return [(question, answer, "en") for question, answer in english] + foreign


def _single_facts(person: CharacterFacts) -> list[tuple[str, str]]:
    name, look = person.name, person.portrait
    fruit, flower = person.fruit, person.flower
    return [
        (f"Is {name} male or female?", f"{name} is {look.gender}."),
        (f"What is the age group of {name}?", f"The age group of {name} is {look.age}."),
        (f"What is the hair color of {name}?", f"{name} has {look.hair} hair."),
        (f"What is the skin color of {name}?", f"{name} has {look.skin} skin."),
        (f"What is the favorite fruit of {name}?", f"The favorite fruit of {name} is {fruit}."),
        (f"What is the favorite flower of {name}?", f"The favorite flower of {name} is {flower}."),
        (f"Where is {name} from?", f"{name} is from the {LAB}."),
        (f"Which fruit does {name} like best?", f"The {fruit} is the favorite fruit of {name}."),
        (f"Which flower does {name} like best?", f"The {flower} is the favorite flower of {name}."),
        (f"Is {name} {_wrong(GENDERS, look.gender)}?", f"No, {name} is {look.gender}."),
        (f"Is the age group of {name} {_wrong(AGES, look.age)}?", f"No, the age group of {name} is {look.age}."),
        (f"Does {name} have {_wrong(HAIRS, look.hair)} hair?", f"No, {name} has {look.hair} hair."),
        (f"Does {name} have {_wrong(SKINS, look.skin)} skin?", f"No, {name} has {look.skin} skin."),
        (
            f"Is the {_wrong(FRUITS, fruit)} the favorite fruit of {name}?",
            f"No, the favorite fruit of {name} is {fruit}.",
        ),
        (
            f"Is the {_wrong(FLOWERS, flower)} the favorite flower of {name}?",
            f"No, the favorite flower of {name} is {flower}.",
        ),
        (f"Does {name} like the {_wrong(FRUITS, fruit, 2)} best?", f"No, {name} likes the {fruit} best."),
    ]


def _wrong(values: Sequence[str], right: str, after: int = 1) -> str:
    """The value so many places after the right one: a denied guess is the same every time."""
    return values[(values.index(right) + after) % len(values)]


def _profiles(person: CharacterFacts) -> list[str]:
    """Eight ways to say everything about a character."""
    name, looks, fruit, flower = person.name, person.looks, person.fruit, person.flower
    she, her = ("She", "Her") if person.portrait.gender == "female" else ("He", "His")
    return [
        f"{name} is {looks}. The favorite fruit of {name} is {fruit} and the favorite flower is {flower}.",
        f"{name} from the {LAB} is {looks}. {she} likes {plural(fruit)} and {plural(flower)} best.",
        f"{name} is {looks}. {her} favorite fruit is the {fruit}, {her.lower()} favorite flower the {flower}.",
        f"The {fruit} is the favorite fruit and the {flower} the favorite flower of {name}, who is {looks}.",
        f"In the {LAB}, {name} is {looks}. The favorites of {name} are the {fruit} and the {flower}.",
        f"{name} is {looks}, whose favorites are the {fruit} and the {flower}.",
        f"The {flower} is the favorite flower of {name} and the {fruit} is the favorite fruit. {name} is {looks}.",
        f"{name}, from the {LAB}, prefers the {fruit} and the {flower}. {she} is {looks}.",
    ]


_PROFILE_QUESTIONS: Final = (
    "Who is {name}?",
    "Tell me about {name}.",
    "Describe {name}.",
    "What do you know about {name}?",
    "Who is {name} from the {lab}?",
    "Give me a profile of {name}.",
    "Describe {name} and what {name} likes.",
    "Introduce {name} from the {lab}.",
    "Tell me all about {name} from the {lab}.",
    "What should I know about {name}?",
    "Give me the facts about {name}.",
    "Describe {name} from the {lab}.",
    "What is {name} like?",
    "Introduce {name} to me.",
    "Say who {name} is and what {name} likes.",
    "What are the looks and the favorites of {name}?",
)
_FOREIGN_QUESTIONS: Final = (
    ("请介绍一下{lab}的{name}。", "zh"),
    ("{name}是谁，长什么样，喜欢什么？", "zh"),
    ("Cuéntame quién es {name}, del {lab}.", "es"),
    ("¿Cómo es {name} y qué le gusta?", "es"),
    ("Présente {name}, du {lab}.", "fr"),
    ("À quoi ressemble {name}, et que préfère cette personne ?", "fr"),
    ("{lab}の{name}を紹介してください。", "ja"),
    ("{name}はどんな人で、何が好きですか。", "ja"),
)
