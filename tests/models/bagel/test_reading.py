"""Reading in packed forwards: the same states as one dense mask, each chunk once, and text that ends where it ends."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.bagel.dense import Masked
from tests.train.small_bagel import picture, small_bagel, small_config

from unigap.models.bagel.attention import Chunk, Packed, Rows, Span, empty_context
from unigap.models.bagel.context import Reader
from unigap.models.bagel.model import BagelModel
from unigap.models.bagel.reading import Reading
from unigap.models.bagel.settings import BagelSampling
from unigap.models.bagel.writing import write


@pytest.fixture(scope="module")
def model() -> BagelModel:
    return small_bagel()


def chunk_of(length: int, past: Chunk, generator: torch.Generator) -> Chunk:
    """Random keys and values of one layer: 2 heads of width 8."""
    chunk = Chunk(past=past, length=length, causal=True, rope_after=0)
    chunk.keys, chunk.values = ([torch.randn(length, 2, 8, generator=generator)] for _ in range(2))
    return chunk


@pytest.mark.parametrize("causal", [True, False])
def test_spans_over_pasts_of_their_own_equal_one_dense_mask(causal: bool):
    generator = torch.Generator().manual_seed(0)
    root = empty_context()
    shared = chunk_of(3, root, generator)
    pasts = [root, shared, chunk_of(5, shared, generator), chunk_of(4, shared, generator)]
    lengths = [4, 4, 4, 2]
    q, k, v = (torch.randn(sum(lengths), heads, 8, generator=generator) for heads in (4, 2, 2))
    starts = np.cumsum([0, *lengths])
    spans = [Span(int(s), n, p, causal) for s, n, p in zip(starts, lengths, pasts)]
    got = Packed(spans)(0, q, k, v)
    for span in spans:
        links = span.past.chain()
        keys = torch.cat([*(link.keys[0] for link in links), k[span.rows]])
        values = torch.cat([*(link.values[0] for link in links), v[span.rows]])
        total, before = len(keys), len(keys) - span.length
        # Queries of the past are thrown away; they only make the mask square.
        queries = torch.cat([torch.zeros(before, 4, 8), q[span.rows]])
        mask = torch.ones(total, total, dtype=torch.bool)
        dense = Masked(mask.tril() if causal else mask)(0, queries, keys, values)
        torch.testing.assert_close(got[span.rows], dense[before:], atol=1e-6, rtol=1e-5)


def test_tokens_one_by_one_over_growing_rows_equal_a_causal_span():
    generator = torch.Generator().manual_seed(1)
    root = empty_context()
    pasts = [root, chunk_of(3, root, generator), chunk_of(7, root, generator)]
    q, k, v = (torch.randn(3, 4, heads, 8, generator=generator) for heads in (4, 2, 2))  # 3 rows of 4 tokens
    spans = [Span(4 * i, 4, past, causal=True) for i, past in enumerate(pasts)]
    want = Packed(spans)(0, q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)).unflatten(0, (3, 4))
    rows, alive = Rows(pasts, 4), torch.arange(3)
    for step in range(4):
        if step == 2:  # row 1 is done
            alive = torch.tensor([0, 2])
            rows.keep(alive)
        got = rows(0, q[alive, step], k[alive, step], v[alive, step])
        rows.advance()
        torch.testing.assert_close(got, want[alive, step], atol=1e-6, rtol=1e-5)


def test_what_requests_share_is_read_once(model: BagelModel):
    reader = Reader(model.checkpoint, keep_hidden=True)
    sampling = BagelSampling(sample_posterior=False)
    for text, seed in (("a cup", 1), ("a cup", 2), ("a book", 3)):
        reading = Reading(reader, sampling, draws=True, seed=seed)
        reading.add([picture("cup", 1), text], "Think first.")
    reader.read()
    kinds = sorted(
        "".join(model.tokenizer.decode(c[1:-1])) if isinstance(c, tuple) else c.kind for c in reader.contents.values()
    )
    # One system prompt for all contexts; the picture for both encoders; each text behind the picture and without it.
    assert kinds == ["Think first.", "a book", "a book", "a cup", "a cup", "vae", "vit"]
    assert set(reader.hidden) == set(reader.contents)


def test_the_three_contexts_of_a_text_a_picture_and_a_thought(model: BagelModel):
    reader = Reader(model.checkpoint)
    reading = Reading(reader, BagelSampling(), draws=True, seed=0)
    reading.add(["ab", picture("cup", 1), "cde"], "s")
    reading.add_thought(model.tokenizer.encode("fghi"))
    contexts = reading.contexts
    # Tokens: "s" has 3 with start and end, "ab" 4; the picture of 16 x 16 px is (16 / 4)^2 latents and 2, then, resized
    # to 18 x 18, (18 / 6)^2 patches and 2, at one position each; "cde" has 5 and "fghi" 6.
    assert (contexts.gen.num_tokens, contexts.gen.rope_after) == (3 + 4 + 18 + 11 + 5 + 6, 3 + 4 + 1 + 1 + 5 + 6)
    assert (contexts.cfg_text.num_tokens, contexts.cfg_text.rope_after) == (3 + 4 + 18 + 11, 3 + 4 + 1 + 1)
    assert (contexts.cfg_img.num_tokens, contexts.cfg_img.rope_after) == (3 + 4 + 5, 3 + 4 + 5)
    assert contexts.size == (16, 16)


def test_a_picture_beyond_the_towers_own_table_is_refused():
    # The file of the tower says 18 px, 3 x 3 patches of 6 px; the rest says 4 patches a side.
    config = small_config()
    model = small_bagel(replace(config, vit=replace(config.vit, image_size=18)))
    reader = Reader(model.checkpoint)
    Reading(reader, BagelSampling(), draws=False, seed=0).add([picture("cup", 1)])  # read at 24 x 24 px or less
    with pytest.raises(ValueError, match=r"position 10 of a table of 9; image_size 18"):
        reader.read()


def test_texts_of_many_lengths_are_written_as_if_alone_each_to_its_own_end(model: BagelModel):
    generator = random.Random(0)
    prompts = ["".join(generator.choices("abc def", k=n)) for n in (1, 9, 30, 2, 14, 5, 22, 3)]
    limits = [7, 1, 30, 0, 12, 30, 3, 30]
    reader = Reader(model.checkpoint)
    contexts = [reader.text(reader.empty, model.tokenizer.segment(prompt)) for prompt in prompts]
    reader.read()

    def written(rows: list[int]) -> list[list[int] | None]:
        return write(
            model.checkpoint,
            [contexts[i] for i in rows],
            first=[model.tokenizer.bos] * len(rows),
            limits=[limits[i] for i in rows],
            temperature=1.5,
            seeds=[100 + i for i in rows],
        )

    together = written(list(range(8)))
    assert together == [written([i])[0] for i in range(8)]
    assert together == written([7, 6, 5, 4, 3, 2, 1, 0])[::-1]
    eos = model.tokenizer.eos
    for ids, limit in zip(together, limits, strict=True):
        assert ids is not None and (len(ids) == limit or ids[-1] == eos)
        assert eos not in ids[:-1]


def test_the_end_token_ends_a_text_and_nothing_follows_it(model: BagelModel, monkeypatch: pytest.MonkeyPatch):
    # Row i is told to end at step i + 1; the last two rows leave the batch together with others.
    eos, logits, step = model.tokenizer.eos, model.bagel.logits, [0]
    alive: list[int] = []

    def ending(hidden: torch.Tensor) -> torch.Tensor:
        out = logits(hidden).fill_(0)
        alive.append(len(out))
        out[:, 5] = 1
        ends = torch.tensor([row <= step[0] for row in rows_of[len(out)]])
        out[ends, eos] = 2
        step[0] += 1
        return out

    # 4 rows; one is done: 3 of 4 are not fewer than three quarters, so it goes; and so on.
    rows_of = {4: [0, 1, 2, 3], 3: [1, 2, 3], 2: [2, 3], 1: [3]}
    monkeypatch.setattr(model.bagel, "logits", ending)
    root = Reader(model.checkpoint).empty
    got = write(
        model.checkpoint, [root] * 4, first=[model.tokenizer.bos] * 4, limits=[9] * 4, temperature=0.0, seeds=[0] * 4
    )
    assert got == [[eos], [5, eos], [5, 5, eos], [5, 5, 5, eos]]
    assert alive == [4, 3, 2, 1]
