"""Pictures of several sizes in one call: some processors pad them to one, and what is read must not depend on that."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unigap.models import find_model
from unigap.models.hf.reader import Reader
from unigap.models.protocol import Request


@pytest.mark.parametrize("kind", ["janus", "emu3", "llava", "qwen"])
def test_what_is_read_in_a_picture_does_not_depend_on_the_sizes_of_others(kind: str, request: pytest.FixtureRequest):
    model = find_model(f"hf:{request.getfixturevalue(f'{kind}_folder')}", device="cpu")
    assert isinstance(model, Reader)
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    square, wide = Image.fromarray(noise), Image.new("RGB", (40, 16), "blue")
    pictures = [square, square.resize((32, 32)), wide, wide.rotate(90, expand=True)]
    asked = [Request(content=(picture, "how many?")) for picture in pictures]
    asked += [Request(content=(wide, square, "same?")), Request(content=(square, wide, "same?"))]
    together = model.log_likelihood(asked, ["2"] * len(asked))
    for one, found in zip(asked, together, strict=True):
        np.testing.assert_allclose(found, model.log_likelihood([one], ["2"])[0], atol=1e-5)
    assert len({float(found[0]) for found in together}) > 2  # it looks at them at all
    settings = replace(model.sampling, max_answer_tokens=8)
    texts = [output.text for output in model.answer(asked, sampling=settings, seeds=[0] * len(asked))]
    assert texts == [model.answer([one], sampling=settings, seeds=[0])[0].text for one in asked]
