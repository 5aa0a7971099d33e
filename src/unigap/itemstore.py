"""The items of a run in one file, so that judging and reporting it again need no generator."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unigap.disk import JsonLog, hash64, read_json_lines, read_line_at
from unigap.errors import IdentityError, RunFolderError
from unigap.items import Item

_BATCH = 100


class ItemStore:
    """Append-only JSON lines of items, read again when asked for; holds about 100 bytes of memory an item."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[int, int] | None = None
        """Hash of the id -> where its line starts; None until first needed."""

    def add(self, items: Iterable[Item]) -> None:
        """Append the items that are not there yet.

        Raises:
            IdentityError: An item of the same id but another content is already there.
            RunFolderError: The file cannot be written.
        """
        batch: dict[int, Item] = {}
        with JsonLog(self.path) as log:
            offsets = self._known()

            def flush() -> None:
                offsets.update(zip(batch, log.append(item.to_json() for item in batch.values()), strict=True))
                batch.clear()

            for item in items:
                name = hash64(item.id)
                if name in batch or name in offsets:
                    self._check_same(item, batch.get(name) or self.get(item.id))
                    continue
                batch[name] = item
                if len(batch) == _BATCH:
                    flush()
            flush()

    def _check_same(self, new: Item, old: Item) -> None:
        # Through JSON, as the stored side went: a tuple must not differ from the list it was saved as.
        now, before = (json.loads(json.dumps(item.to_json())) for item in (new, old))
        if differing := [name for name in now if before.get(name) != now[name]]:
            raise IdentityError(
                f"item {_short(new.id)} is already in {self.path} with another {', '.join(differing)}. "
                "Give it another id, choose another folder (--out), or move this run aside with --overwrite."
            )

    def _known(self) -> dict[int, int]:
        if self._offsets is None:
            lines = read_json_lines(self.path) if self.path.exists() else ()
            self._offsets = {hash64(data["id"]): offset for offset, data in lines}
        return self._offsets

    def get(self, item_id: str) -> Item:
        """The item of that id.

        Raises:
            RunFolderError: There is none.
        """
        offset = self._known().get(hash64(item_id))
        if offset is None:
            raise RunFolderError(f"{self.path} has no item {_short(item_id)}")
        return self._parse(read_line_at(self.path, offset))

    def __iter__(self) -> Iterator[Item]:
        """All items, one at a time."""
        if self.path.exists():
            for _, data in read_json_lines(self.path):
                yield self._parse(data)

    def _parse(self, data: Mapping[str, Any]) -> Item:
        try:
            return Item.from_json(data)
        except ValueError as error:
            raise RunFolderError(f"{self.path}: not an item: {error}") from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
