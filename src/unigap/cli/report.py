"""`unigap report`: the table, the numbers and the page of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from unigap.cli.common import ArgumentError, Name, Run, console
from unigap.errors import UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Report:
    """Show the gap table of a run again, and write summary.json and report.html anew."""

    folder: Run
    """Run folder."""
    judge: Name = None
    """Whose verdicts; needed when the run has several judges."""
    variants: bool = False
    """Give each variant of a family a row of its own."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the table as JSON here too."""

    def run(self) -> None:
        from unigap.records import RunFolder
        from unigap.report.run import report_run

        folder = RunFolder.open(self.folder)
        judges = [judge.name for judge in folder.judges()]
        if not judges:
            raise ArgumentError(f'{self.folder} has no verdicts yet; "unigap judge {self.folder}" makes them')
        if self.judge is not None and self.judge not in judges:
            raise UnknownNameError("judge of this run", self.judge, judges)
        if self.judge is None and len(judges) > 1:
            raise ArgumentError(f"{self.folder} has several judges; name one with --judge: {', '.join(judges)}")
        report_run(folder, self.judge or judges[0], console(), json_path=self.json, variants=self.variants)
