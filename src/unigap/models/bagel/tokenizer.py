"""Qwen2's tokenizer as BAGEL uses it: text to ids and back, special tokens included."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unigap.errors import WeightsError
from unigap.models.bagel.config import SpecialTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"


class BagelTokenizer:
    """Segments of text are [bos] + ids + [eos]; there is no chat template.

    Args:
        tokenizer: As read from a checkpoint's folder.
    """

    def __init__(self, tokenizer: "Tokenizer", special: SpecialTokens) -> None:
        self.tokenizer, self.special = tokenizer, special
        self.bos, self.eos = self._id(special.bos), self._id(special.eos)
        self.start_of_image, self.end_of_image = self._id(special.start_of_image), self._id(special.end_of_image)

    def _id(self, token: str) -> int:
        index = self.tokenizer.token_to_id(token)
        if index is None:
            raise WeightsError(f"the tokenizer has no token {token!r}, with which sequences are built")
        return index

    @classmethod
    def from_folder(cls, folder: Path, special: SpecialTokens) -> "BagelTokenizer":
        """Read `tokenizer.json`, or else Qwen2's older pair `vocab.json` and `merges.txt`.

        Raises:
            WeightsError: There is neither, or it cannot be read.
        """
        from tokenizers import Tokenizer

        names = (TOKENIZER_FILE,) if (folder / TOKENIZER_FILE).is_file() else ("vocab.json", "merges.txt")
        if not all((folder / name).is_file() for name in names):
            raise WeightsError(f"{folder} has no {TOKENIZER_FILE} (nor vocab.json and merges.txt)")
        try:
            if len(names) == 1:
                tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            else:
                from transformers import Qwen2Tokenizer

                tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        except Exception as error:  # the library raises Exception itself for a file that is no tokenizer
            raise WeightsError(f"{folder / ' and '.join(names)} cannot be read: {error}") from error
        return cls(tokenizer, special)

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / TOKENIZER_FILE))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def segment(self, text: str) -> list[int]:
        """The ids of a text as it stands in a sequence."""
        return [self.bos, *self.encode(text), self.eos]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    def reread(self, written: Sequence[int], *, through_text: bool) -> tuple[str, list[int]]:
        """A thought's text, and the ids of it that are read.

        Args:
            written: Tokens as they were written, an end token last if it came.
            through_text: Ids of the text, cut at the first end token and at a second start token; else the ids as
                written.
        """
        ids = list(written[:-1]) if written[-1:] == [self.eos] else list(written)
        text = self.decode(ids)
        if not through_text:
            return text, ids
        text = text.split(self.special.eos)[0].split(self.special.bos)[0]
        return text, self.encode(text)
