"""Nouns as labels use them: singular and plural, articles, synonyms, and the categories that questions ask for."""

import re
from collections.abc import Iterable

_IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "oxen": "ox", "dice": "die", "cacti": "cactus",
}  # fmt: skip

_SYNONYMS = (
    "bicycle bike", "sofa couch settee", "phone telephone smartphone cellphone", "television tv telly",
    "automobile car", "rabbit bunny", "airplane plane aeroplane aircraft", "ship boat", "photo photograph picture",
    "fridge refrigerator", "rug carpet", "notebook notepad", "computer pc", "mug cup", "drawing picture",
    "candy sweet", "cookie biscuit", "puppy dog", "kitten cat", "lamp light", "spectacles glasses eyeglasses",
    "watch timepiece", "purse handbag", "hamburger burger", "movie film", "stone rock", "cap hat", "bookcase bookshelf",
    "motorbike motorcycle", "pants trousers", "microphone mic", "tin can",
)  # fmt: skip
_GROUPS = tuple(frozenset(group.split()) for group in _SYNONYMS)

GENERIC = frozenset("item object thing unit piece element".split())
"""Nouns that name nothing in particular."""

_CATEGORIES = {
    "animal": "dog cat rabbit horse bird fish turtle squirrel cow sheep lion tiger mouse bear elephant frog duck puppy "
    "kitten rat hamster pig",
    "fruit": "apple banana orange grape strawberry blueberry peach lemon kiwi pear cherry mango watermelon pineapple "
    "plum",
    "vegetable": "carrot potato onion tomato cabbage pea bean",
    "flower": "rose tulip lily daisy sunflower orchid carnation flower",
    "furniture": "chair table sofa desk bed lamp bookshelf couch cabinet stool armchair hammock shelf lawn-chair",
    "vehicle": "car bicycle boat airplane skateboard scooter bus truck train ship motorcycle bike plane",
    "instrument": "guitar piano violin drum flute trumpet cello harp saxophone",
    "utensil": "spoon fork knife plate cup bowl pan pot spatula",
    "clothing": "shirt pants sock shoe hat glove jacket coat belt sweater dress scarf",
    "timepiece": "clock watch",
    "tool": "hammer nail saw screwdriver wrench pliers drill",
    "device": "phone laptop tablet computer camera mouse television radio keyboard monitor printer speaker",
    "food": "pizza hamburger burger sandwich cookie chocolate cake bread",
}  # fmt: skip
_MEMBERS = {category: frozenset(names.split()) for category, names in _CATEGORIES.items()}
_ALIKE = (
    {"animal", "pet"}, {"instrument", "musical instrument"}, {"device", "gadget", "electronic device"},
    {"clothing", "clothing item", "apparel"},
)  # fmt: skip
_EDIBLE = frozenset({"food", "fruit", "vegetable"})
_AT_HOME = frozenset({"furniture", "device", "timepiece", "utensil", "instrument"})


def singulars(word: str) -> frozenset[str]:
    """What a word may be the plural of, and the word itself: "scarves" gives scarf, scarfe, scarve."""
    found = {word, _IRREGULAR.get(word, word)}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        found.add(word[:-1])
        if word.endswith("ies"):
            found.add(word[:-3] + "y")
        if word.endswith("ves"):
            found |= {word[:-3] + "f", word[:-3] + "fe"}
        if word.endswith("es"):
            found.add(word[:-2])
    return frozenset(found)


def words_of(phrase: str) -> tuple[str, ...]:
    """A phrase in lower case without articles and punctuation."""
    words = re.findall(r"[^\W_]+(?:['-][^\W_]+)*", phrase.lower())
    return tuple(word for word in words if word not in ("a", "an", "the", "some"))


def same_noun(a: str, b: str) -> bool:
    """Whether two phrases name the same thing, however they are numbered or spelled; synonyms count."""
    left, right = words_of(a), words_of(b)
    if not left or not right:
        return False
    if "".join(left) == "".join(right) or singulars("".join(left)) & singulars("".join(right)):
        return True
    if len(left) == len(right):
        return all(_same_word(one, other) for one, other in zip(left, right, strict=True))
    # "socks" for "pairs of socks", "bear" for "teddy bear": the head of the longer phrase.
    shorter, longer = sorted((left, right), key=len)
    return all(_same_word(one, other) for one, other in zip(shorter, longer[-len(shorter) :], strict=True))


def _same_word(a: str, b: str) -> bool:
    one, other = singulars(a), singulars(b)
    return bool(one & other) or any(one & group and other & group for group in _GROUPS)


def names(phrase: str, text: str) -> bool:
    """Whether a text has the phrase in it, in any number."""
    wanted, words = words_of(phrase), words_of(text)
    places = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(
        all(_same_word(a, b) for a, b in zip(wanted, words[at : at + len(wanted)], strict=True)) for at in places
    )


def is_generic(phrase: str) -> bool:
    """Whether a phrase names nothing in particular ("items")."""
    words = words_of(phrase)
    return bool(words) and all(singulars(word) & GENERIC for word in words)


def outside_category(category: str, noun: str) -> bool:
    """Whether a noun is known to be of another kind than the category asked for; unknown nouns are not."""
    words = words_of(noun)
    if not words:
        return False
    own = {name for name, members in _MEMBERS.items() if singulars("-".join(words)) & members}
    asked = set(_category_names(category))
    if not own or not asked or own & asked:
        return False
    return not any(asked <= kin and own & kin for kin in (_EDIBLE, _AT_HOME))


def _category_names(category: str) -> Iterable[str]:
    wanted = " ".join(words_of(category))
    for alike in _ALIKE:
        if wanted in alike:
            yield from (name for name in alike if name in _MEMBERS)
    if wanted in _MEMBERS:
        yield wanted
