"""Facts of the real world whose answer is a number from 1 to 9, each reached over a thing that is only hinted at.

"The number of legs of the animal that barks" is two hops: the animal that barks is the dog, and a dog has 4 legs. Only
what reference works agree on and what does not change is here: flags, planets, elements, the calendar, rules of games.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class WorldFact:
    """One number, and the way to it."""

    number: str
    """Asks for it in a noun phrase, e.g. "the number of legs of the animal that barks"."""
    hops: tuple[str, str]
    """The two facts it takes."""
    n: int


_FLAGS: Final = {
    "Vienna": ("Austria", 2), "Warsaw": ("Poland", 2), "Tokyo": ("Japan", 2), "Kyiv": ("Ukraine", 2),
    "Copenhagen": ("Denmark", 2), "Athens": ("Greece", 2), "Paris": ("France", 3), "Rome": ("Italy", 3),
    "Berlin": ("Germany", 3), "Dublin": ("Ireland", 3), "Brussels": ("Belgium", 3), "Oslo": ("Norway", 3),
    "Seoul": ("South Korea", 4), "Port Louis": ("Mauritius", 4), "Amman": ("Jordan", 4),
}  # fmt: skip
"""Capital -> country, colors in its flag."""

_STARS: Final = {
    "Ankara": ("Turkey", 1), "Hanoi": ("Vietnam", 1), "Wellington": ("New Zealand", 4), "Beijing": ("China", 5),
    "Canberra": ("Australia", 6), "Caracas": ("Venezuela", 8),
}  # fmt: skip
"""Capital -> country, stars in its flag."""

_PLANETS: Final = {
    "that is the smallest in the solar system": ("Mercury", 1),
    "that is named after the Roman goddess of love": ("Venus", 2),
    "that we live on": ("the Earth", 3),
    "that is named after the Roman god of war": ("Mars", 4),
    "that is the largest in the solar system": ("Jupiter", 5),
    "that has Titan as a moon": ("Saturn", 6),
    "that William Herschel discovered": ("Uranus", 7),
    "that is named after the Roman god of the sea": ("Neptune", 8),
}
"""What is said of a planet -> its name, its place from the Sun."""

_ELEMENTS: Final = {
    "the lightest of all elements": ("hydrogen", 1), "the gas that lets party balloons rise": ("helium", 2),
    "the lightest of all metals": ("lithium", 3), "the element that diamonds are made of": ("carbon", 6),
    "the gas that makes up most of the air": ("nitrogen", 7), "the gas in the air that fire needs": ("oxygen", 8),
    "the lightest of the halogens": ("fluorine", 9),
}  # fmt: skip
"""Description -> element, protons in its atom."""

_DAYS: Final = {
    "Epiphany": ("January", 1), "Valentine's Day": ("February", 2), "Saint Patrick's Day": ("March", 3),
    "Earth Day": ("April", 4), "International Workers' Day": ("May", 5), "Bastille Day": ("July", 7),
    "Assumption Day": ("August", 8),
}  # fmt: skip
"""Day -> its month and the month's number."""

_OTHERS: Final = (
    ("legs of the animal that barks", "the animal that barks is the dog", "a dog has 4 legs", 4),
    ("legs of the animal that spins webs", "the animal that spins webs is the spider", "a spider has 8 legs", 8),
    ("legs of the insect that makes honey", "the insect that makes honey is the bee", "a bee has 6 legs", 6),
    ("legs of the bird that hoots at night", "the bird that hoots at night is the owl", "an owl has 2 legs", 2),
    ("legs of the animal that gives us wool", "the animal that gives us wool is the sheep", "a sheep has 4 legs", 4),
    (
        "wheels of the vehicle that is ridden in the Tour de France",
        "the Tour de France is ridden on bicycles",
        "a bicycle has 2 wheels",
        2,
    ),
    (
        "strings of the instrument that made Niccolo Paganini famous",
        "the violin made Paganini famous",
        "a violin has 4 strings",
        4,
    ),
    (
        "strings of the small guitar that is typical of Hawaii",
        "the small guitar of Hawaii is the ukulele",
        "a ukulele has 4 strings",
        4,
    ),
    (
        "players that a team has on the court in the sport of the NBA",
        "the sport of the NBA is basketball",
        "a basketball team has 5 players on the court",
        5,
    ),
    (
        "players that a team has in the field in the sport of the World Series",
        "the sport of the World Series is baseball",
        "a baseball team has 9 players in the field",
        9,
    ),
    (
        "players of a team in the sport that Harry Potter plays on a broom",
        "Harry Potter plays Quidditch",
        "a Quidditch team has 7 players",
        7,
    ),
    (
        "players of a team in the ball game that is played on horses",
        "the ball game that is played on horses is polo",
        "a polo team has 4 players",
        4,
    ),
    ("sides of the shape that a stop sign has", "a stop sign is an octagon", "an octagon has 8 sides", 8),
    (
        "sides of the shape that the cells of a honeycomb have",
        "the cells of a honeycomb are hexagons",
        "a hexagon has 6 sides",
        6,
    ),
    (
        "sides of the shape that gives the headquarters of the armed forces of the United States its name",
        "the headquarters is the Pentagon",
        "a pentagon has 5 sides",
        5,
    ),
    (
        "symphonies by the composer of the Moonlight Sonata",
        "the composer of the Moonlight Sonata is Beethoven",
        "Beethoven wrote 9 symphonies",
        9,
    ),
    (
        "wives of the English king who broke with the Pope",
        "the king who broke with the Pope is Henry the Eighth",
        "Henry the Eighth had 6 wives",
        6,
    ),
    (
        "dwarfs in the tale of the princess who bites into a poisoned apple",
        "the princess with the poisoned apple is Snow White",
        "Snow White meets 7 dwarfs",
        7,
    ),
    ("eyes of the giant that Odysseus blinded", "the giant is Polyphemus, a Cyclops", "a Cyclops has 1 eye", 1),
    (
        "rings in the flag of the Games that were revived in Athens in 1896",
        "the Games of 1896 are the Olympic Games",
        "the Olympic flag has 5 rings",
        5,
    ),
    (
        "moons of the planet that is named after the Roman god of war",
        "the planet of the Roman god of war is Mars",
        "Mars has 2 moons",
        2,
    ),
)
"""What is counted, the two hops, and the number."""


def _facts() -> Iterator[WorldFact]:
    for things, table in (("colors", _FLAGS), ("stars", _STARS)):
        for capital, (country, n) in table.items():
            yield WorldFact(
                f"the number of {things} in the flag of the country whose capital is {capital}",
                (f"{capital} is the capital of {country}", f"{things} in the flag of {country}: {n}"),
                n,
            )
    for clause, (planet, n) in _PLANETS.items():
        yield WorldFact(
            f"the place, counted from the Sun, of the planet {clause}",
            (f"the planet {clause} is {planet}", f"place of {planet} from the Sun: {n}"),
            n,
        )
    for description, (element, n) in _ELEMENTS.items():
        yield WorldFact(
            f"the number of protons in an atom of {description}",
            (f"{description} is {element}", f"protons in an atom of {element}: {n}"),
            n,
        )
    for day, (month, n) in _DAYS.items():
        yield WorldFact(
            f"the number of the month, from 1 for January, in which {day} falls",
            (f"{day} is in {month}", f"number of {month}: {n}"),
            n,
        )
    for what, first, second, n in _OTHERS:
        yield WorldFact(f"the number of {what}", (first, second), n)


WORLD: Final = tuple(_facts())
