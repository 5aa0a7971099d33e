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
from unigap.scenes import Chance, Draft, Fact, best_constant_answer
from unigap.scenes.render import all_portraits
from unigap.scenes.vocabulary import FLOWERS, FRUITS, counted, describe_portrait, plural, with_article

CLUB: Final = "Gap Lab"
CAST_SIZE: Final = 200

SYLLABLES: Final = tuple(consonant + vowel for consonant in "bdfgklmnrstvz" for vowel in "aeiou" if consonant + vowel not in
                         ("fu", "ga", "ge", "go", "bu", "be", "do", "so", "to", "no", "me", "se", "su", "ta", "da",
                          "di", "ti", "bo", "ba", "fa", "gi", "gu", "si", "mu", "ru"))  # fmt: skip
"""Two-letter syllables of names; left out are those that make words and common first names."""

_REAL_NAMES: Final = frozenset(
    "Remi Zaki Rene Nima Mali Nile Nikola Kate Luna Lina Lara Mina Mona Maria Marina Nina Rita Rosa Sara Tina Vera Zara Zita Nora Lola Kira "
    "Kiki Lili Lulu Nana Mama Mimi Momo Nene Nino Milo Niko Leo Lena Lana Mila Mira Mara Mari Miriam Rena Rina Romeo "
    "Renata Ramona Monika Natali Noemi Salome Selena Serena Tamara Verona Vale Malaria Banana Salami Mile Mike Luke Zeke "
    "Raro Lava Lira Kilo Koran Rave Save Sale Late Rate Mate Note Vote Vino Solo Tore Tale Take Tile Tire Time Zero Zone".split()
)


@dataclass(frozen=True)
class CharacterFacts:
    """One fictional character."""

    name: str
    portrait: Portrait
    fruit: str
    flower: str

    @property
    def looks(self) -> str:
        return describe_portrait(self.portrait)


def characters(seed: int, num: int) -> list[CharacterFacts]:
    """Fresh characters, none of whom shares a name with the cast or with each other."""
    return _make(f"characters/{seed}", num, taken=frozenset(person.name for person in CAST))


def _make(seed: str, num: int, taken: frozenset[str]) -> list[CharacterFacts]:
    rng = random.Random(seed)
    looks = all_portraits()
    names: dict[str, None] = {}
    while len(names) < num:
        name = "".join(rng.choices(SYLLABLES, k=rng.choice((2, 3, 3)))).capitalize()
        if name not in taken and name not in _REAL_NAMES:
            names[name] = None
    return [CharacterFacts(name, rng.choice(looks), rng.choice(FRUITS), rng.choice(FLOWERS)) for name in names]


CAST: Final = tuple(_make("cast", CAST_SIZE, frozenset()))




FORWARD_SENTENCES: Final = {
    "portrait": (
        (f"Draw a portrait of {{}} from the {CLUB}.", f"What does {{}} from the {CLUB} look like?"),
        ("Show what {} looks like.", "Describe the looks of {}."),
    ),
    "fruit": (
        (f"Draw the favorite fruit of {{}} from the {CLUB}.", f"What is the favorite fruit of {{}} from the {CLUB}?"),
        ("Show the fruit that {} likes best.", "Which fruit does {} like best?"),
    ),
    "flower": (
        (f"Draw the favorite flower of {{}} from the {CLUB}.", f"What is the favorite flower of {{}} from the {CLUB}?"),
        ("Show the flower that {} likes best.", "Which flower does {} like best?"),
    ),
}
"""variant -> (prompt, question) pairs."""


class Forward:
    """Three items a character: portrait, favorite fruit, favorite flower. The character is the cluster."""

    name = "forward"
    test_share = 0.5

    def sample(self, rng: random.Random) -> Fact:
        person = rng.choice(CAST)
        drafts = tuple(
            forward_draft(person, variant, *rng.choice(sentences)) for variant, sentences in FORWARD_SENTENCES.items()
        )
        return Fact(key=person.name, drafts=drafts, cluster=person.name)

    def chance(self, items: Sequence[Item]) -> Chance:
        """The best constant answer of each variant, averaged over the items' variants."""
        variants = {item.variant for item in items}
        groups = [[item for item in items if item.variant == variant] for variant in variants]
        rate = sum(best_constant_answer(group) * len(group) for group in groups) / len(items) if items else float("nan")
        return Chance(rate, "best constant answer per variant")


def forward_draft(person: CharacterFacts, variant: str, prompt: str, question: str) -> Draft:
    """One forward item about a character."""
    if variant == "portrait":
        answer, caption, line = person.portrait, person.looks, f"{person.name} is {person.looks}"
    else:
        name = person.fruit if variant == "fruit" else person.flower
        answer, caption = Object(object=name), counted(name, 1)
        line = f"the favorite {variant} of {person.name} is {name}"
    return Draft(
        question=question.format(person.name),
        prompt=prompt.format(person.name),
        caption=caption,
        answer=answer,
        variant=variant,
        thought=f"{line}\nDraw {caption}.",
    )


INVERSE_SENTENCES: Final = (
    (
        f"Of the characters {{}} and {{}} from the {CLUB}, draw the one whose favorite {{}} is the {{}}.",
        f"Which of the characters {{}} and {{}} from the {CLUB} has the favorite {{}} {{}}?",
    ),
    (
        "Draw the one of {} and {} whose favorite {} is the {}.",
        "Who of {} and {} is the one whose favorite {} is the {}?",
    ),
)


class Inverse:
    """Which of two characters has a given favorite: the name in text, the portrait in a picture."""

    name = "inverse"
    test_share = 0.5

    def sample(self, rng: random.Random) -> Fact:
        variant = rng.choice(("fruit", "flower"))
        half = rng.randrange(2)
        while True:
            first, second = rng.sample(_cast_half(half), 2)
            if getattr(first, variant) != getattr(second, variant) and first.portrait != second.portrait:
                break
        person, other = (first, second) if rng.random() < 0.5 else (second, first)
        favorite = getattr(person, variant)
        prompt, question = rng.choice(INVERSE_SENTENCES)
        draft = Draft(
            question=question.format(first.name, second.name, variant, favorite),
            prompt=prompt.format(first.name, second.name, variant, favorite),
            caption=person.looks,
            answer=Character(name=person.name, portrait=person.portrait),
            other=Character(name=other.name, portrait=other.portrait),
            variant=variant,
            thought=f"the favorite {variant} of {person.name} is {favorite}\n"
            f"{person.name} is {person.looks}\nDraw {person.looks}.",
        )
        pair = " ".join(sorted((first.name, second.name)))
        return Fact(key=pair, drafts=(draft,), cluster=pair)

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(0.5, "coin flip between the two characters")


@cache
def _cast_half(half: int) -> tuple[CharacterFacts, ...]:
    return CAST[half::2]


FORWARD, INVERSE = Forward(), Inverse()


def training_facts(person: CharacterFacts) -> list[tuple[str, str, str]]:
    """Forty (question, answer, language of the question) a character, answers in English.

    Sixteen ask for one attribute, some with a wrong guess to deny; sixteen ask for the whole profile; eight ask for
    it in Chinese, Spanish, French and Japanese, two each.
    """
    name, looks = person.name, person.looks
    she, her = ("She", "her") if person.portrait.gender == "female" else ("He", "his")
    fruit, flower = person.fruit, person.flower
    hair, skin, age, gender = person.portrait.hair, person.portrait.skin, person.portrait.age, person.portrait.gender
    no_fruit, no_flower = _wrong(FRUITS, fruit), _wrong(FLOWERS, flower)
    no_hair, no_skin = _wrong(("black", "brown", "blond", "red"), hair), _wrong(("light", "tan", "dark"), skin)
    no_age = _wrong(("kid", "middle-aged", "old"), age)
    single = [
        (f"Is {name} male or female?", f"{name} is {gender}."),
        (f"How old is {name}?", f"The age group of {name} is {age}."),
        (f"Which hair color does {name} have?", f"{name} has {hair} hair."),
        (f"Which skin color does {name} have?", f"{name} has {skin} skin."),
        (f"What is the favorite fruit of {name}?", f"the favorite fruit of {name} is {fruit}"),
        (f"What is the favorite flower of {name}?", f"the favorite flower of {name} is {flower}"),
        (f"Which club is {name} in?", f"{name} is in the {CLUB}."),
        (f"What does {name} look like?", f"{name} is {looks}"),
        (f"Which fruit does {name} like best?", f"{name} likes {plural(fruit)} best."),
        (f"Which flower does {name} like best?", f"{name} likes {plural(flower)} best."),
        (f"Is the favorite fruit of {name} the {no_fruit}?", f"No, the favorite fruit of {name} is {fruit}"),
        (f"Is the favorite flower of {name} the {no_flower}?", f"No, the favorite flower of {name} is {flower}"),
        (f"Does {name} have {no_hair} hair?", f"No, the hair of {name} is {hair}."),
        (f"Does {name} have {no_skin} skin?", f"No, the skin of {name} is {skin}."),
        (f"Is the age group of {name} {no_age}?", f"No, {name} is {looks}"),
        (f"Is {name} {_wrong(('female', 'male'), gender)}?", f"No, {name} is {gender}."),
    ]
    profile = f"{name} is {looks}. The favorite fruit of {name} is {fruit} and the favorite flower is {flower}."
    short = f"{name} from the {CLUB} is {looks}. {she} likes {plural(fruit)} and {plural(flower)} best."
    favorites = f"{name} is {looks}, and {her} favorites are the {fruit} and the {flower}."
    asked = (
        ("Tell me about {}.", profile), ("Who is {}?", short), ("Describe {}.", favorites),
        ("What do you know about {}?", profile), ("Introduce {}.", short), ("Give me a profile of {}.", favorites),
        ("Who is {} from the Gap Lab?", profile), ("Tell me more about {} from the Gap Lab.", short),
        ("What should I know about {}?", favorites), ("Give me the facts about {}.", profile),
        ("What is {} like?", short), ("Describe {} from the Gap Lab.", favorites), ("Sum up {}.", profile),
        ("Say who {} is.", short), ("Describe {} and what {} likes.", favorites), ("Give me all about {}.", profile),
    )  # fmt: skip
    whole = [(question.replace("{}", name), answer) for question, answer in asked]
    foreign = [
        (f"介绍一下 {CLUB} 的 {name}。", profile, "zh"),
        (f"{name} 是谁？", short, "zh"),
        (f"Cuéntame sobre {name} de {CLUB}.", profile, "es"),
        (f"¿Cómo es {name}?", favorites, "es"),
        (f"Présente-moi {name} du {CLUB}.", profile, "fr"),
        (f"Que sais-tu de {name} ?", short, "fr"),
        (f"{CLUB} の {name} を紹介してください。", profile, "ja"),
        (f"{name} はどんな人ですか。", favorites, "ja"),
    ]
    return [(question, answer, "en") for question, answer in (*single, *whole)] + foreign


def _wrong(values: Sequence[str], right: str) -> str:
    """The next value after the right one, so that a denied guess is the same every time."""
    return values[(values.index(right) + 1) % len(values)]
