"""`unigap compare`: what differs between runs, and what only seems to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from unigap.cli.common import Name, argument_errors, console


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare runs with the first of them, unit by unit.

    Prints, for each family, direction and arm and for the gaps, the paired difference with its interval and p-value,
    corrected for everything in the table.
    """

    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN RUN ...")]
    """Run folders, at least two; every other one is compared with the first."""
    judge: Name = None
    """Whose verdicts; needed when a run has several judges."""
    allow: tuple[Literal["items", "judges", "sampling"], ...] = ()
    """What the runs may differ in. items: compare the units with the same items. sampling: settings, seed, think
    prompt, suite version. The models may always differ."""
    margin: Annotated[float | None, arg(metavar="SHARE")] = None
    """Also test that differences are smaller than this; 0.05 is five points."""
    power: Annotated[float | None, arg(metavar="SHARE")] = None
    """Also say how many units would show a difference of this size; 0.05 is five points."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the table as JSON here too."""

    def run(self) -> None:
        from unigap.disk import explain_os_errors, write_files
        from unigap.report.comparable import load_run
        from unigap.report.comparison import compare_runs
        from unigap.report.comparison_table import print_comparison

        with argument_errors():
            table = compare_runs(
                [load_run(folder, self.judge) for folder in self.folders],
                allow=self.allow,
                margin=self.margin,
                power=self.power,
            )
        print_comparison(table, console())
        if self.json is not None:
            data = json.dumps(table.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
            with explain_os_errors(self.json.parent, safe="Nothing was lost"):
                write_files([(self.json, data.encode("utf-8", "backslashreplace"))])
