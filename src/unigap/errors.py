"""Every exception this package raises on purpose.

    UnigapError
    |- ItemFileError         a line of an item or benchmark file is not what the format says
    |- UnknownNameError      a family, suite, arm, model or judge that no table knows (also a KeyError)
    |- CannotJudgeError      a judge refuses, before a run, items or pictures it cannot read
    |- CannotAskError        a model lacks what every requested item needs
    |- NotComparableError    numbers that are asked for together lack what they have to share
    |- WeightsError          weights are missing, or are not the file their card describes
    |- RunFolderError        a run folder cannot be written or read
    |  `- IdentityError      the folder holds a run of another identity
    `- TrainingError         a training run cannot go on (non-finite loss, unusable checkpoint)

`ValueError` is for a caller's wrong arguments, `assert` for our own invariants.
"""

from collections.abc import Iterable


class UnigapError(Exception):
    """Base of all errors that have a message a user can act on."""


class ItemFileError(UnigapError):
    """A line of an item or benchmark file is malformed; the message names file, line and what was expected."""


class UnknownNameError(UnigapError, KeyError):
    """A name that no table knows; the message lists the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(known)
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(self.known)}")

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class CannotJudgeError(UnigapError):
    """A judge cannot read what it is asked to judge. Raised before any model call is spent."""


class CannotAskError(UnigapError):
    """The model declares none of the abilities that the requested items need."""


class NotComparableError(UnigapError):
    """Directions, models or runs do not share the items that a comparison needs; the message says how many."""


class WeightsError(UnigapError):
    """A weights file is missing, truncated, or has another hash than its card states."""


class RunFolderError(UnigapError):
    """A run folder cannot be read or written; the message says what is safe on disk."""


class IdentityError(RunFolderError):
    """The folder holds records of another run identity; the message lists what differs."""


class TrainingError(UnigapError):
    """Training cannot continue; the last good checkpoint is untouched."""
