"""`unigap items audit`: published labels recomputed."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from unigap.cli.common import ArgumentError, UnfinishedError, console

if TYPE_CHECKING:
    from rich.console import Console

    from unigap.benchmarks.audit import Audit


@dataclass(frozen=True, kw_only=True)
class AuditItems:
    """Recompute the labels of UniSandbox-format files: arithmetic, mapping chains, and knowledge against training.

    Exit code 1 if there are errors; notes alone are fine.
    """

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE ...")]
    """Benchmark or training files, JSON lines."""
    facts: Annotated[tuple[Path, ...], arg(metavar="FILE ...")] = ()
    """Training files that answers about people are checked against, instead of the nearest data/knowledge folder."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the findings as JSON here too."""

    def run(self) -> None:
        from unigap.benchmarks.audit import audit_files
        from unigap.disk import explain_os_errors, write_files
        from unigap.errors import ItemFileError

        if not self.files:
            raise ArgumentError("no file to audit; name at least one")
        try:
            audit = audit_files(self.files, facts=self.facts)
        except ItemFileError as error:
            raise ArgumentError(str(error)) from error
        print_audit(audit, console())
        if self.json is not None:
            data = json.dumps(audit.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
            with explain_os_errors(self.json.parent, safe="Nothing was lost"):
                write_files([(self.json, data.encode("utf-8", "backslashreplace"))])
        if audit.num_errors:
            wrong = len({(f.file, f.line, f.id) for f in audit.findings if f.severity == "error"})
            raise UnfinishedError(f"{audit.num_errors} errors in {wrong} lines")


def print_audit(audit: "Audit", console: "Console") -> None:
    """One table of findings, and one of counts by file."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    if audit.findings:
        table = Table("line", "id", "field", "", box=box.SIMPLE)
        table.add_column("kind", no_wrap=True)
        for name in ("label", "computed", "why"):
            table.add_column(name)
        for file in audit.files:
            if file.findings:
                table.add_section()
                table.add_row("", "", Text(Path(file.file).name, style="bold"))
            for f in file.findings:
                style = "red" if f.severity == "error" else ""
                cells = (f.id, f.field, f.severity, f.kind, f.label[:80], f.computed, f.why)
                # Text, not str: what a file says is never markup.
                table.add_row(str(f.line), *(Text(cell, style=style if cell == "error" else "") for cell in cells))
        console.print(table)
    # Relative to the folder they share, so that names are seen whole.
    shared = os.path.commonpath([Path(file.file).parent for file in audit.files])
    counts = Table(Column("file", no_wrap=True), "lines", "errors", "notes", "kinds", box=box.SIMPLE)
    for file in audit.files:
        kinds = Counter(f.kind for f in file.findings)
        errors = sum(f.severity == "error" for f in file.findings)
        said = ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
        notes = len(file.findings) - errors
        counts.add_row(Text(os.path.relpath(file.file, shared)), str(file.num_lines), str(errors), str(notes), said)
    console.print(counts)
    for file in audit.files:
        if file.num_unchecked:
            why = "as no training file describes them; --facts names some"
            note = f"note: {file.file}: {file.num_unchecked} lines about people were not checked, {why}"
            console.print(Text(note), soft_wrap=True)
