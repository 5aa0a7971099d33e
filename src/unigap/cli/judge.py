"""`unigap judge`: verdicts on a run's records."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import arg

from unigap.cli.common import Run, judge_and_show, print_loose_ends

if TYPE_CHECKING:
    from unigap.models.protocol import Model


@dataclass(frozen=True, kw_only=True)
class JudgeRun:
    """Judge a run, or judge it again with another judge, and show the gap by its verdicts.

    Verdicts are added beside the records, which stay as they are; what is scored already is not judged twice.
    """

    folder: Run
    """Run folder."""
    judge: str = "exact"
    """Who judges: "exact", or "their.module:Class"."""
    overwrite: bool = False
    """Move verdicts of another version or prompt of this judge aside."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the table as JSON here too."""

    def run(self) -> None:
        from unigap.evaluate import check_judge
        from unigap.judges import find_judge
        from unigap.records import RunFolder

        folder, judge = RunFolder.open(self.folder), find_judge(self.judge)
        # The model is not loaded again: a judge asks only for its name and its kind of pictures.
        drawn = folder.run["config"].get("pictures", "sandbox")
        asked = cast("Model", SimpleNamespace(name=folder.identity.model.name, pictures=drawn))
        check_judge(judge, asked, folder.items())
        num_unscored = judge_and_show(folder, judge, overwrite=self.overwrite, json_path=self.json)
        print_loose_ends(None, num_unscored)
