"""Does a deployed assistant draw what it knows? Your own facts, asked in text and as pictures, judged by another model.

    python recipes/audit_assistant.py --facts recipes/audit_assistant.csv --model "openai:ASSISTANT@URL?draw=images" \\
        --judge "vlm:JUDGE@URL"

The facts are a CSV file (docs/suites.md, "Your own facts"); those beside this file are fictional. Keys are read from
OPENAI_API_KEY (docs/models.md); the same variable is sent to both servers. Three calls to the assistant a fact: its
answer, its drawing, and its drawing once it is told what is right (oracle), which tells not knowing how to draw a thing
from not bringing what it knows into the drawing. Shown at the end: the gap table, and every fact that it knows and does
not draw. A run that was stopped goes on with the same command, and facts may be added to the file; with --dry-run it
says what it would ask and at what price.

Expect nothing in particular: it is your assistant. Ask at least some dozens of facts, or the intervals say little.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unigap.cli.common import UnfinishedError
from unigap.cli.eval import Eval
from unigap.cli.items import MakeItems
from unigap.errors import UnigapError
from unigap.items import Arm, Direction, Item
from unigap.judges import find_judge
from unigap.records import Key, RunFolder, Verdict

FACTS = Path(__file__).with_suffix(".csv")
KNOWS: tuple[Direction, Arm] = ("understanding", "normal")
DRAWS: tuple[Direction, Arm] = ("generation", "normal")
TOLD: tuple[Direction, Arm] = ("generation", "oracle")


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Ask every fact both ways, judge, and list what is known and not drawn."""

    model: str
    """The assistant: "openai:MODEL@URL?draw=SHAPE" (docs/models.md)."""
    judge: str
    """Who judges: "vlm:MODEL@URL" (docs/judges.md); not the assistant itself."""
    facts: Path = FACTS
    """Your facts."""
    out: Path = Path("runs/audit")
    """Folder of the items and the run."""
    dry_run: bool = False
    """Say what would be asked, its time and its price, and ask nothing."""


def main(audit: Audit, console: Console) -> None:
    items, run = audit.out / "items.jsonl", audit.out / "run"
    MakeItems(from_=audit.facts, out=items).run()
    command = Eval(
        model=audit.model,
        judge=audit.judge,
        items=(items,),
        arms=("normal", "oracle"),
        out=run,
        dry_run=audit.dry_run,
    )
    left = ""
    try:
        command.run()
    except UnfinishedError as error:  # what there is is shown all the same
        left = str(error)
    if not audit.dry_run:
        show(RunFolder.open(run), find_judge(audit.judge).name, console)
    if left:
        raise UnfinishedError(left)


def show(folder: RunFolder, judge: str, console: Console) -> None:
    """Print how many facts are known, drawn, both or neither, and the known ones whose drawing is wrong."""
    counts, records = Counter[tuple[str, str]](), folder.records()
    table = Table("known: question", "answer", "drawn instead, as the judge says", "drawn once told", "picture")
    for item, knows, draws, told in verdicts_of(folder, judge):
        counts[word(knows), word(draws)] += 1
        if (word(knows), word(draws)) == ("correct", "incorrect"):
            assert draws is not None
            record = records.get(draws.key)
            picture = record.image if record and record.image else "none"
            cells = (item.question, item.caption, draws.why, word(told), picture)
            table.add_row(*(Text(printable(cell)) for cell in cells))
    scored = {key: count for key, count in counts.items() if {*key} <= {"correct", "incorrect"}}
    known = sum(count for (knows, _), count in scored.items() if knows == "correct")
    drawn = sum(count for (_, draws), count in scored.items() if draws == "correct")
    console.print(
        f"{sum(scored.values())} facts judged both ways: {known} known in text, {drawn} drawn right; "
        f"{counts['correct', 'incorrect']} known and not drawn, {counts['incorrect', 'correct']} drawn and not known"
    )
    if rest := counts.total() - sum(scored.values()):
        console.print(f"{rest} facts lack a verdict in one direction; the same command tries again")
    if table.row_count:
        console.print(table)


def verdicts_of(folder: RunFolder, judge: str) -> Iterator[tuple[Item, Verdict | None, Verdict | None, Verdict | None]]:
    """Every fact with the verdicts on its text, its drawing, and its drawing once told; None if there is none."""
    verdicts = folder.verdicts(judge)
    for item in folder.items():
        knows, draws, told = (verdicts.get(Key(item.id, *asked, 0)) for asked in (KNOWS, DRAWS, TOLD))
        yield item, knows, draws, told


def word(verdict: Verdict | None) -> str:
    return verdict.verdict if verdict else "missing"


def printable(text: str) -> str:
    """On one line, without what would steer a terminal: models wrote it."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:300])


if __name__ == "__main__":
    try:
        main(tyro.cli(Audit, description=__doc__), Console())
    except UnigapError as error:
        raise SystemExit(f"audit: {error}") from None
