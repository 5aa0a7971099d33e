"""A second opinion on the labels of the suite "bidirectional": works them out from sentence and picture alone.

Nothing here comes from `unigap.scenes` but the profiles of the cast, which are the facts that its questions are about.
Facts of the real world are written down once more. A reader returns what the answer must be, as its JSON without
`kind`: {"counts": ...}, {"object": ..., "n": ...}, {"object": ...} or {"name": ...}.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tests.scenes.oracle import NAMES, PLURALS, SPOKEN, Parser, UnreadableError, counted

from unigap.scenes.knowledge import CAST

NUMBERS = {"one": 1, "two": 2, "three": 3}
Counts = dict[str, int]


def one_of(word: str) -> str:
    """Canonical name from a singular or plural."""
    name = PLURALS.get(word, word)
    if name not in NAMES:
        raise UnreadableError(f"not an object: {word!r}")
    return name


def in_picture(ref: str) -> Counts:
    """What "scene:grid:a,.,b,..." holds."""
    return dict(Counter(cell for cell in ref.removeprefix("scene:grid:").split(",") if cell != "."))


# ---- editing ---------------------------------------------------------------------------------------------------------

_W = r"(\w+)"
_COUNTED = r"(one|two|three) (\w+)"


def _replace(counts: Counts, x: str, n: str, y: str) -> None:
    if not counts.get(one_of(x)):
        raise UnreadableError(f"there is no {x}")
    counts[one_of(y)] = counts.get(one_of(y), 0) + NUMBERS[n] * counts.pop(one_of(x))


def _remove_all(counts: Counts, x: str) -> None:
    if not counts.pop(one_of(x), 0):
        raise UnreadableError(f"there is no {x}")


def _remove(counts: Counts, n: str, x: str) -> None:
    counts[one_of(x)] = counts.get(one_of(x), 0) - NUMBERS[n]
    if counts[one_of(x)] < 1:
        raise UnreadableError(f"{n} {x} cannot be taken away and leave one")


def _add(counts: Counts, n: str, x: str) -> None:
    counts[one_of(x)] = counts.get(one_of(x), 0) + NUMBERS[n]


def _match(counts: Counts, x: str, y: str) -> None:
    if not counts.get(one_of(y)):
        raise UnreadableError(f"there is no {y}")
    counts[one_of(x)] = counts.get(one_of(x), 0) + counts[one_of(y)]


def _level(counts: Counts, x: str, again: str, y: str) -> None:
    if x != again or not counts.get(one_of(x), 0) > counts.get(one_of(y), 0) > 0:
        raise UnreadableError(f"{x} cannot be brought down to {y}: {counts}")
    counts[one_of(x)] = counts[one_of(y)]


EDITS: tuple[tuple[str, Callable[..., None]], ...] = (
    (rf"(?:replace|turn|exchange) (?:every|each) {_W} (?:with|into|for) {_COUNTED}", _replace),
    (rf"every {_W} becomes {_COUNTED}", _replace),
    (rf"remove all the {_W}|take all the {_W} away|delete every {_W}", _remove_all),
    (rf"(?:remove|delete) {_COUNTED}|take {_COUNTED} away", _remove),
    (rf"add {_COUNTED}|put {_COUNTED} into the picture", _add),
    (rf"add as many {_W} as there are {_W}|(?:add|put in) one {_W} for (?:every|each) {_W}", _match),
    (rf"remove {_W} until there are as many {_W} as {_W}", _level),
    (rf"take {_W} away until there are only as many {_W} as {_W}", _level),
)
_CONDITION = re.compile(
    rf"(?:(?:if|in case) there are more {_W} than {_W}|if the {_W} outnumber the {_W}), "
    r"(.+); (?:otherwise|if not|in any other case), (.+)"
)
_SEQUENCE = re.compile(r"first (.+), then (.+)|(.+), and after that (.+)|(.+) and then (.+)")


def after_rule(rule: str, counts: Counts) -> Counts:
    """The objects after a rule is applied to these."""
    if match := _CONDITION.fullmatch(rule):
        x, y, then, otherwise = (group for group in match.groups() if group is not None)
        return after_rule(then if counts.get(one_of(x), 0) > counts.get(one_of(y), 0) else otherwise, counts)
    if match := _SEQUENCE.fullmatch(rule):
        first, second = (group for group in match.groups() if group is not None)
        return after_rule(second, after_rule(first, counts))
    fitting = [(match, edit) for pattern, edit in EDITS if (match := re.fullmatch(pattern, rule))]
    if len(fitting) != 1:
        raise UnreadableError(f"{len(fitting)} readings of {rule!r}")
    ((match, edit),) = fitting
    after = dict(counts)
    edit(after, *(group for group in match.groups() if group is not None))
    return after


def read_editing(sentence: str, picture: str | None) -> dict[str, Any]:
    assert picture is not None
    found = re.search(r": ([^.?:]+)[.?]", sentence)
    if not found:
        raise UnreadableError(f"no rule: {sentence!r}")
    return {"counts": after_rule(found[1], in_picture(picture))}


# ---- amounts ---------------------------------------------------------------------------------------------------------

AMOUNTS: tuple[tuple[str, str], ...] = (
    ("swap", rf"numbers of {_W} and {_W} (?:in the picture were )?swapped"),
    ("swap", rf"as many {_W} as (?:there are|this one has) {_W}[^,]*, and as many"),
    ("swap", rf"[Tt]he {_W} and the {_W} (?:in the picture )?trade their numbers"),
    ("double", rf"twice as many {_W} and (?:keeps )?the same number of {_W}"),
    ("double", rf"[Dd]ouble the number of {_W} in the picture and leave the {_W} as they are"),
    ("double", rf"number of {_W} in the picture is doubled and the {_W} are left as they are"),
    ("double back", rf"as many {_W} as this one and two {_W} for each one here"),
    ("equal", rf"[Jj]ust enough {_W} (?:are )?added (?:to the picture )?to have as many (?:\w+) as {_W}"),
    ("equal", rf"more {_W}, as many as there are {_W}, whose number stays the same"),
    ("equal back", rf"equal by adding {_W} only"),
    ("missing", rf"{_W} (?:that )?have to be added to the picture to have as many (?:\w+) as {_W}"),
    ("missing", rf"fewer {_W} than {_W}\. .*missing for equal numbers"),
    ("missing back", rf"Each of the {_W} in the picture is to go with one of the {_W}\. .*still needed"),
    ("total", rf"as many {_W} as there are {_W} and {_W} together"),
    ("total", rf"How many {_W} does it take to have as many as there are {_W} and {_W} together"),
    ("all", rf"one {_W} for every object in the picture"),
    ("all", rf"Count all the objects in the picture and draw that many {_W}"),
    ("all", rf"Count all the objects in the picture\. How many {_W} does it take to have that many"),
)


def read_amounts(sentence: str, picture: str | None) -> dict[str, Any]:
    assert picture is not None
    given = in_picture(picture)
    found = [(what, match) for what, pattern in AMOUNTS if (match := re.search(pattern, sentence))]
    if len(found) != 1:
        raise UnreadableError(f"{[what for what, _ in found]}: {sentence!r}")
    ((what, match),) = found
    names = [one_of(word) for word in match.groups()]
    if what.startswith("equal") and len(names) == 1:
        names = [next(name for name in given if name != names[0]), *names]
    if what.endswith(" back"):
        names.reverse()
    if not {"total": set(names[1:]) == set(given), "all": True}.get(what.split()[0], set(names) == set(given)):
        raise UnreadableError(f"{names} are not what the picture holds: {given}")
    match what.split()[0]:
        case "swap":
            return {"counts": {names[0]: given[names[1]], names[1]: given[names[0]]}}
        case "double":
            return {"counts": {names[0]: 2 * given[names[0]], names[1]: given[names[1]]}}
        case "equal" if given[names[0]] < given[names[1]]:
            return {"counts": dict.fromkeys(names, given[names[1]])}
        case "missing" if given[names[0]] < given[names[1]]:
            return {"object": names[0], "n": given[names[1]] - given[names[0]]}
        case "total" | "all" if names[0] not in given:
            return {"object": names[0], "n": sum(given.values())}
    raise UnreadableError(f"{what} of {given}: {sentence!r}")


# ---- knowledge -------------------------------------------------------------------------------------------------------

BY_NAME = {person.name: person for person in CAST}
KIND_OF = dict.fromkeys("apple banana orange strawberry grape".split(), "fruit")
KIND_OF |= dict.fromkeys("rose tulip daisy sunflower".split(), "flower")
_LOOKS = re.compile(
    r"an? (?:(old|middle-aged) )?(light|tan|dark)-skinned (girl|boy|woman|man) with (black|brown|blond|red) hair"
)

NUMBER_OF = {
    # colors and stars in flags
    "Vienna": 2, "Warsaw": 2, "Tokyo": 2, "Kyiv": 2, "Copenhagen": 2, "capital is Athens": 2, "Paris": 3,
    "Rome": 3, "Berlin": 3, "Dublin": 3, "Brussels": 3, "Oslo": 3, "Seoul": 4, "Port Louis": 4, "Amman": 4, "Ankara": 1,
    "Hanoi": 1, "Wellington": 4, "Beijing": 5, "Canberra": 6, "Caracas": 8,
    # places of planets, and their moons
    "planet that is the smallest": 1, "goddess of love": 2, "from the Sun, of the planet that we live on": 3,
    "from the Sun, of the planet that is named after the Roman god of war": 4, "planet that is the largest": 5,
    "Titan": 6, "Herschel": 7, "god of the sea": 8, "moons of the planet that is named after the Roman god of war": 2,
    # atomic numbers
    "lightest of all elements": 1, "balloons": 2, "lightest of all metals": 3, "diamonds": 6, "most of the air": 7,
    "fire needs": 8, "halogens": 9,
    # months
    "Epiphany": 1, "Valentine": 2, "Patrick": 3, "Earth Day": 4, "Workers": 5, "Bastille": 7, "Assumption": 8,
    # dogs, spiders, bees, owls, sheep, bicycles, violins, ukuleles
    "barks": 4, "spins webs": 8, "makes honey": 6, "hoots": 2, "wool": 4, "Tour de France": 2, "Paganini": 4,
    "Hawaii": 4,
    # basketball, baseball, Quidditch, polo
    "NBA": 5, "World Series": 9, "Harry Potter": 7, "on horses": 4,
    # octagon, hexagon, pentagon
    "stop sign": 8, "honeycomb": 6, "headquarters": 5,
    # Beethoven, Henry the Eighth, Snow White, the Cyclops, the Olympic Games
    "Moonlight": 9, "Pope": 6, "poisoned": 7, "Odysseus": 1, "1896": 5,
}  # fmt: skip
"""Words that only one question of the real world has -> its answer."""


def read_multihop(sentence: str, picture: str | None) -> dict[str, Any]:
    assert picture is None
    named = [word for word in re.findall(r"[A-Z][a-z]+", sentence) if word in BY_NAME]
    kinds = re.findall(r"\b(?:fruit|flower)\b", sentence)
    if "character" in sentence and not named:
        return _read_only(sentence)
    if not kinds:
        return _read_general(sentence)
    people = [BY_NAME[name] for name in named]
    if len(people) == 3:
        third = BY_NAME[_third(sentence)]
        right = [p.name for p in people if p is not third and p.favorite(kinds[0]) == third.favorite(kinds[0])]
        if len(set(named)) != 3 or len(right) != 1:
            raise UnreadableError(f"{len(right)} share it: {sentence!r}")
        return {"name": right[0]}
    if hair := re.search(r"has (\w+) hair", sentence):
        right = [person for person in people if person.portrait.hair == hair[1]]
    else:
        liked = _only_match(r"likes the (\w+) best", sentence)
        right = [person for person in people if person.favorite(KIND_OF[liked]) == liked]
    if len(people) != 2 or len(right) != 1 or len(set(kinds)) != 1:
        raise UnreadableError(f"{len(right)} of {len(people)} fit: {sentence!r}")
    return {"object": right[0].favorite(kinds[0])}


def _third(sentence: str) -> str:
    return _only_match(r"as (\w+)[.?]|(\w+) from the Gap Lab has a favorite|shares the favorite \w+ of (\w+)", sentence)


def _only_match(pattern: str, sentence: str) -> str:
    found = [group for match in re.finditer(pattern, sentence) for group in match.groups() if group]
    if len(found) != 1:
        raise UnreadableError(f"{found} for {pattern!r} in {sentence!r}")
    return found[0]


def _read_only(sentence: str) -> dict[str, Any]:
    looks = _LOOKS.search(sentence)
    assert looks, sentence
    age, skin, noun, hair = looks.groups()
    wanted = ("female" if noun in ("girl", "woman") else "male", age or "kid", hair, skin)
    liked = _only_match(rf"the ({'|'.join(KIND_OF)}) (?:best|as)|is the ({'|'.join(KIND_OF)})[.?]", sentence)
    kind = "flower" if KIND_OF[liked] == "fruit" else "fruit"
    fitting = []
    for person in CAST:
        face = person.portrait
        if (face.gender, face.age, face.hair, face.skin) == wanted and liked in (person.fruit, person.flower):
            fitting.append(person)
    if len(fitting) != 1:
        raise UnreadableError(f"{len(fitting)} of the cast fit: {sentence!r}")
    return {"object": fitting[0].favorite(kind)}


def _read_general(sentence: str) -> dict[str, Any]:
    found = [n for words, n in NUMBER_OF.items() if words in sentence]
    names = {PLURALS[word] for word in re.findall(r"[a-z]+", sentence) if word in PLURALS}
    if len(found) != 1 or len(names) != 1:
        raise UnreadableError(f"{found} of {names}: {sentence!r}")
    return {"object": names.pop(), "n": found[0]}


# ---- options ---------------------------------------------------------------------------------------------------------

_OPTIONS = re.compile(r" A: ([\w ]+)\. B: ([\w ]+)\. C: ([\w ]+)\. D: ([\w ]+)\.$")
TOGETHER = (
    {"apple", "banana", "orange", "strawberry", "grape"},
    {"rose", "tulip", "daisy", "sunflower"},
    {"cup", "spoon", "fork", "plate"},
)


def read_choice(sentence: str, picture: str | None) -> dict[str, Any]:
    found = _OPTIONS.search(sentence)
    if not found:
        raise UnreadableError(f"no options: {sentence!r}")
    options, puzzle = list(found.groups()), sentence[: found.start()]
    if len(set(options)) != 4:
        raise UnreadableError(f"options repeat: {options}")
    if picture is not None:
        right = _complete(picture, options)
    elif "odd one" in puzzle or "Three of" in puzzle:
        right = [name for name in options if any(len(kind.intersection(options) - {name}) == 3 for kind in TOGETHER)]
        right = [name for name in right if not any(name in kind and len(kind & set(options)) > 1 for kind in TOGETHER)]
    elif "leads to" in puzzle or "means" in puzzle or "stands for" in puzzle:
        right = [_decode(puzzle)]
    else:
        right = _numbered(puzzle, options)
    if len(right) != 1 or right[0] not in options:
        raise UnreadableError(f"{right} of {options}: {sentence!r}")
    n, _, name = right[0].rpartition(" ")
    return {"object": one_of(name), "n": int(n)} if n else {"object": name}


def _numbered(puzzle: str, options: list[str]) -> list[str]:
    """The options with the value of the expression, or with the next term, of the puzzle's object."""
    for words, symbol in SPOKEN:
        puzzle = puzzle.replace(words, symbol)
    if "steps" in puzzle or "same amount" in puzzle:
        first, second, third = map(int, re.findall(r"\d+", puzzle))
        if third - second != second - first:
            raise UnreadableError(f"unequal steps: {puzzle!r}")
        value = 2 * third - second
    else:
        (expression,) = [text for text in re.findall(r"[0-9√(][0-9√()+\-*/%^ ]*", puzzle) if re.search(r"\d", text)]
        value = Parser(re.findall(r"[0-9]+|[√()+\-*/%^]", expression)).parse()
    asked = {one_of(word) for word in re.findall(r"[a-z]+", puzzle) if word in PLURALS or word in NAMES}
    return [option for option in options if option in {counted(name, int(value)) for name in asked}]


def _decode(puzzle: str) -> str:
    meaning: dict[str, str] = {}
    rule = re.compile(r"The (?:sign|number) (\S) (?:leads to|means|stands for) (?:the number (\d)|an? (\w+))\. ")
    for left, digit, name in rule.findall(puzzle):
        if left in meaning:
            raise UnreadableError(f"{left} has two meanings: {puzzle!r}")
        meaning[left] = digit or name
    query = _only_match(r"the sign ([@#$%&*^])", rule.sub("", puzzle))
    through = meaning[query]
    if len(meaning) != 6 or not through.isdigit():
        raise UnreadableError(f"not two hops: {puzzle!r}")
    return meaning[through]


def _complete(picture: str, options: list[str]) -> list[str]:
    """The options with which all rows, columns, diagonals of one direction or fields of a board are each of a kind."""
    cells = picture.removeprefix("scene:grid:").split(",")
    empty = cells.index(".")
    classes = (
        lambda r, c: r,
        lambda r, c: c,
        lambda r, c: (r + c) % 3,
        lambda r, c: (r - c) % 3,
        lambda r, c: (r + c) % 2,
    )

    def alike(name: str) -> bool:
        full = [name if place == empty else cell for place, cell in enumerate(cells)]
        kinds_in_class = [{(of(*divmod(place, 3)), cell) for place, cell in enumerate(full)} for of in classes]
        return any(len(kinds) == len({group for group, _ in kinds}) for kinds in kinds_in_class)

    return [name for name in options if alike(name)]


# ---- the check of one item -------------------------------------------------------------------------------------------

READERS = {"editing": read_editing, "amounts": read_amounts, "multihop": read_multihop, "choice": read_choice}


def complain(item: Mapping[str, Any]) -> str | None:
    """What is wrong with an item of the suite, given as JSON; None if nothing is."""
    read = READERS[item["family"]]
    if item["images"] != item["prompt_images"]:
        return "the directions show different pictures"
    picture = item["images"][0] if item["images"] else None
    try:
        asked, drawn = read(item["question"], picture), read(item["prompt"], picture)
    except UnreadableError as error:
        return str(error)
    if asked != drawn:
        return f"question and prompt differ: {asked} and {drawn}"
    answer = {name: value for name, value in item["answer"].items() if name not in ("kind", "portrait")}
    if answer != asked:
        return f"the answer is {answer}, the sentences say {asked}"
    if not 1 <= sum(asked.get("counts", {"": asked.get("n", 1)}).values()) <= 9:
        return f"no picture holds {asked}"
    if picture and asked.get("counts") == in_picture(picture):
        return "a copy of the picture is right"
    return _complain_about_caption(item["caption"], item["answer"])


def _complain_about_caption(caption: str, answer: Mapping[str, Any]) -> str | None:
    match answer["kind"]:
        case "character":
            found = _LOOKS.fullmatch(caption)
            face = answer["portrait"]
            said = found and (found[1] or "kid", found[2], found[4])
            right = said == (face["age"], face["skin"], face["hair"]) and (
                (found[3] in ("girl", "woman")) == (face["gender"] == "female")
            )
        case "counts":
            ordered = sorted(answer["counts"], key=NAMES.index)
            right = re.split(", | and ", caption) == [counted(name, answer["counts"][name]) for name in ordered]
        case _:
            right = caption == counted(answer["object"], answer.get("n", 1))
    return None if right else f"the caption is {caption!r} for {dict(answer)}"
