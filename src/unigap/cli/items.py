"""`unigap items`: items made, and written in the formats of others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from unigap.cli.common import ArgumentError, File, Folder, Name, Names, argument_errors, check_families


@dataclass(frozen=True, kw_only=True)
class MakeItems:
    """Make items of the sandbox and write them as JSON lines."""

    out: File
    """File to write, one item a line."""
    suite: str = "sandbox"
    """Named list of families."""
    families: Names = ()
    """Families to make instead of the whole suite."""
    num_units: int = 100
    """Units a family; a pair of mapping items is one unit."""
    seed: int = 0
    """Another seed gives other items; the same seed always the same."""
    split: Literal["train", "test"] = "test"
    """The two splits never share an item, whatever the seeds."""

    def run(self) -> None:
        from unigap.disk import explain_os_errors
        from unigap.items import items_sha256, write_items
        from unigap.scenes import make_items

        families = check_families(self.suite, self.families)
        with argument_errors():
            items = list(make_items(families, num_units=self.num_units, seed=self.seed, split=self.split))
        with explain_os_errors(self.out.parent, safe="Nothing was lost"):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_items(self.out, items)
        print(f"{self.out}: {len(items)} items of {len(families)} families, sha256 {items_sha256(items)}")


@dataclass(frozen=True, kw_only=True)
class ExportItems:
    """Write items, or a run's items and pictures, in the format of another benchmark, for its own scripts."""

    source: Annotated[Positional[Path], arg(metavar="FILE|RUN")]
    """Item file, or run folder: then its pictures are written too."""
    out: Folder
    """Folder to write into."""
    format: Literal["unisandbox"] = "unisandbox"
    """Whose format."""
    judge: Name = None
    """Of a run: write this judge's verdicts as result files too."""

    def run(self) -> None:
        from unigap.benchmarks.files import read_item_file
        from unigap.benchmarks.unisandbox_export import export_run, export_unisandbox
        from unigap.records import RunFolder

        with argument_errors():
            if self.source.is_dir():
                written = export_run(RunFolder.open(self.source), self.out, judge=self.judge)
            else:
                written = export_unisandbox(read_item_file(self.source).items, self.out)
        if not written:
            raise ArgumentError(f"{self.source} holds nothing that {self.format} has a format for")
        for path in written:
            print(path)


@dataclass(frozen=True)
class Items:
    """Make items, or write them in the formats of others."""

    command: (
        Annotated[MakeItems, subcommand("make", prefix_name=False)]
        | Annotated[ExportItems, subcommand("export", prefix_name=False)]
    )

    def run(self) -> None:
        self.command.run()
