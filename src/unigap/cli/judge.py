"""`unigap judge`: verdicts on a run's records, and how far they can be trusted."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import arg

from unigap.cli.common import (
    ArgumentError,
    Run,
    UnfinishedError,
    argument_errors,
    console,
    judge_and_show,
    print_loose_ends,
)

if TYPE_CHECKING:
    from unigap.judges.protocol import Judge
    from unigap.models.protocol import Model
    from unigap.records import RunFolder


@dataclass(frozen=True, kw_only=True)
class JudgeRun:
    """Judge a run, or judge it again with another judge, and show the gap by its verdicts.

    Verdicts are added beside the records, which stay as they are; what is scored already is not judged twice. With
    --card the judge itself is measured too; with --label you are the judge of some pictures.
    """

    folder: Run
    """Run folder."""
    judge: str = "exact"
    """Who judges: "exact", or "their.module:Class"."""
    overwrite: bool = False
    """Move verdicts of another version or prompt of this judge aside."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the table, or with --card the card, as JSON here too."""
    card: bool = False
    """Measure the judge's own error rates, and show corrected values beside the raw ones."""
    labels: Annotated[Path | None, arg(metavar="FILE")] = None
    """With --card: take the error rates on pictures from these labels of the run's own (RUN/labels.csv)."""
    num_items: int = 50
    """With --card: items of each family that known-right and known-wrong answers are made about."""
    label: bool = False
    """Serve a page on this machine for labelling pictures of the run by hand, into RUN/labels.csv."""
    num_labels: int = 50
    """With --label: how many pictures."""
    port: int = 0
    """With --label: 0 takes a free one."""
    seed: int = 0
    """Of the items a card draws, and of the pictures drawn for labelling."""

    def run(self) -> None:
        from unigap.evaluate import check_judge, judge_run
        from unigap.judges import find_judge
        from unigap.records import RunFolder

        if self.label and self.card:
            raise ArgumentError("--label and --card are two steps: label, then --card --labels RUN/labels.csv")
        if self.labels and not self.card:
            raise ArgumentError("--labels is for --card")
        if min(self.num_items, self.num_labels) < 1 or not 0 <= self.port < 2**16:
            raise ArgumentError("--num-items and --num-labels must be at least 1, --port from 0 to 65535")
        folder = RunFolder.open(self.folder)
        with argument_errors():
            judge = find_judge(self.judge)
        # The model is not loaded again: a judge asks only for its name and its kind of pictures.
        drawn = folder.run["config"].get("pictures", "sandbox")
        asked = cast("Model", SimpleNamespace(name=folder.identity.model.name, pictures=drawn))
        check_judge(judge, asked, folder.items())
        if self.label:
            judge_run(folder, judge, overwrite=self.overwrite)
            self._label(folder, judge.name, drawn)
            return
        json_path = None if self.card else self.json
        num_unscored = judge_and_show(folder, judge, overwrite=self.overwrite, json_path=json_path)
        if self.card:
            self._card(folder, judge, drawn)
        print_loose_ends(None, num_unscored)

    def _card(self, folder: "RunFolder", judge: "Judge", drawn: str) -> None:
        from unigap.judges.card import Card, card_path, probe_card, write_card
        from unigap.judges.labels import label_side, read_labels
        from unigap.report.corrected import correct_run, print_card, print_corrected

        card = probe_card(judge, folder.items(), num_items=self.num_items, seed=self.seed)
        if self.labels:
            side = label_side(folder, judge.name, read_labels(self.labels), pictures=drawn)
            kept = tuple(side for side in card.sides if side.direction != "generation")
            card = Card(judge=card.judge, sides=(*kept, side), notes=card.notes)
        rows, notes = correct_run(folder, card, seed=self.seed)
        screen = console()
        print_card(card, screen)
        print_corrected(rows, notes, screen)
        path = card_path(folder, judge.name)
        for written in filter(None, (path, self.json)):
            write_card(
                written, card, corrected=[row.to_json() for row in rows], notes=[*card.notes, *notes], seed=self.seed
            )
        screen.print(f"card: {path}", highlight=False, markup=False, soft_wrap=True)

    def _label(self, folder: "RunFolder", judge: str, drawn: str) -> None:
        from unigap.judges.labels import LABELS_FILE, draw_pictures, read_labels, write_labels
        from unigap.report.labelling import Labels, labelling_server, page_address

        path = folder.path / LABELS_FILE
        before = read_labels(path) if path.exists() else []
        with argument_errors():
            rows = draw_pictures(folder, judge, before, num=self.num_labels, seed=self.seed)
        write_labels(path, rows)
        labels = Labels(folder, rows, path)
        try:
            server = labelling_server(labels, pictures=drawn, port=self.port)
        except OSError as error:
            raise ArgumentError(f"cannot listen on port {self.port}: {error.strerror}") from None
        print(f"open in a browser: {page_address(server)}", flush=True)
        print(f"{labels.num_done} of {len(rows)} pictures are labelled; Ctrl-C ends", file=sys.stderr)
        with server:
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print(file=sys.stderr)
        if labels.num_done < len(rows):
            raise UnfinishedError(
                f"{labels.num_done} of {len(rows)} labelled, saved in {path}; the same command goes on"
            )
        print(f'{path}: {len(rows)} labels; "unigap judge {folder.path} --card --labels {path}" uses them')
