"""GvU's reward in one pass for a batch, against the released algorithm written plainly: one forward pass a token, one
drawing at a time, probabilities multiplied.

python -m bench.reward_speed [--tokens 24] [--batch 16] [--repeats 5]
"""

import argparse
import statistics
import time

import torch

from unigap.items import Count, Item
from unigap.models.protocol import Request
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.model import TinyModel
from unigap.scenes.render import Grid, render
from unigap.scenes.vocabulary import OBJECTS
from unigap.train.rewards import LikelihoodReward, Wording


def one_pass_a_token(model: TinyModel, item: Item, image) -> float:
    """The geometric mean as released: a product of probabilities, then its root."""
    ids, _ = model.encode(Request(content=(image, Wording().instruction)), tok.ANSWER)
    target, product = model.tokenizer.encode(item.caption), 1.0
    for token in target:
        with torch.no_grad():
            logits = model.network(torch.tensor([ids]))[0, -1]
        product *= logits.softmax(-1)[token].item()
        ids.append(token)
    return product ** (1 / len(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = TinyModel.from_pretrained()
    # "1 cup and 2 pens and ...": three tokens an object, cut to the length asked for.
    words = " and ".join(f"{k % 9 + 1} {OBJECTS[k % len(OBJECTS)]}" for k in range(arguments.tokens)).split()
    caption = " ".join(words[: arguments.tokens])
    assert len(model.tokenizer.encode(caption)) == arguments.tokens
    items = [
        Item(
            id=str(k),
            family="bench",
            unit=str(k),
            cluster=str(k),
            question="What is in the picture?",
            prompt=caption,
            caption=caption,
            answer=Count(object="cup", n=1),
        )
        for k in range(arguments.batch)
    ]
    images = [render(Grid((OBJECTS[k % len(OBJECTS)],) + (None,) * 8)) for k in range(arguments.batch)]
    reward = LikelihoodReward(model, batch_size=arguments.batch)
    seconds: dict[str, list[float]] = {"one pass": [], "one pass a token": []}
    for _ in range(arguments.repeats):
        start = time.process_time()
        batched = reward.grade(items, images)
        seconds["one pass"].append(time.process_time() - start)
        start = time.process_time()
        plain = [one_pass_a_token(model, item, image) for item, image in zip(items, images, strict=True)]
        seconds["one pass a token"].append(time.process_time() - start)
    apart = max(abs(a - b) / b for a, b in zip(batched, plain, strict=True))
    for name, values in seconds.items():
        print(f"{name}: median {statistics.median(values) * 1000:.1f} ms of CPU (least {min(values) * 1000:.1f})")
    ratio = statistics.median(seconds["one pass a token"]) / statistics.median(seconds["one pass"])
    print(f"{ratio:.0f}x; largest relative difference {apart:.1e}")


if __name__ == "__main__":
    main()
