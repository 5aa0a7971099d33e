"""What recipes/three_papers.py shows, from its folders: differences between parts of the job, and pictures.

OUT/before/sandbox, OUT/before/bidirectional    the model as it is
OUT/math, math-shuffled, mapping, mapping-shuffled, mapping-curriculum    each with the run folder "measured"
OUT/pretrain/weak, OUT/pretrain/further, OUT/gvu-weak, gvu-random, gvu-further    likewise
"""

from pathlib import Path

from unigap.arms import Question
from unigap.items import Arm
from unigap.records import Key, RunFolder
from unigap.report.pictures import image_uri
from unigap.report.quantities import JUDGE, Units, gain_minus_gain, minus, over_guessing, read_units
from unigap.report.reproduction import Estimate, Example, Picture
from unigap.scenes import make_items

MATH = ("math1", "math2", "math3")
MAPPING = ("mapping1", "mapping2", "mapping3")
BOTH_WAYS = ("plain", "counting")
"""What pretraining teaches in both directions."""
DRAWN: Question = ("generation", "normal")
THOUGHT: Question = ("generation", "think")
SAID: Question = ("understanding", "normal")


def estimates(out: Path) -> dict[str, Estimate]:
    """Of the claims that compare run folders; the others are given by their part alone."""
    sandbox, reasoning = out / "before" / "sandbox", (*MATH, *MAPPING)
    everything, hardest = (*reasoning, *BOTH_WAYS), MAPPING[-1:]

    def after(stage: str, families: tuple[str, ...]) -> Units:
        return read_units(out / stage / "measured", DRAWN, families)

    def gap(folder: Path, families: tuple[str, ...]) -> Estimate:
        return minus(read_units(folder, SAID, families), read_units(folder, DRAWN, families), ("drawing", "text"))

    drawn, math, mapping = read_units(sandbox, DRAWN, reasoning), after("math", MATH), after("mapping", MAPPING)
    shuffled = {**after("math-shuffled", MATH), **after("mapping-shuffled", MAPPING)}
    in_order = after("mapping-curriculum", hardest)
    found = {
        "chance": over_guessing(sandbox, DRAWN, reasoning),
        "text_over_drawing": gap(sandbox, reasoning),
        "thought": minus(read_units(sandbox, THOUGHT, reasoning), drawn, ("at once", "after a thought")),
        "stars_math": minus(math, drawn, ("before", "after")),
        "stars_mapping": minus(mapping, drawn, ("before", "after")),
        "stars_control": minus({**math, **mapping}, shuffled, ("shuffled", "STARS")),
        "curriculum": minus(in_order, after("mapping", hardest), ("all at once", "curriculum")),
        "gap": gap(sandbox, everything),
        "lagging": gap(out / "pretrain" / "weak", BOTH_WAYS),
    }

    def plain(folder: Path, *variants: str) -> Units:
        return read_units(folder, DRAWN, ["plain"], variants or ("one", "two"))

    start, further = out / "pretrain" / "weak", out / "pretrain" / "further"
    tuned, random, tuned_further = (out / f"gvu-{name}" / "measured" for name in ("weak", "random", "further"))
    captions, captions_before = (read_units(folder, SAID, ["plain"]) for folder in (tuned, start))
    return found | {
        "gvu_one": minus(plain(tuned, "one"), plain(start, "one"), ("before", "after")),
        "gvu_two": minus(plain(tuned, "two"), plain(start, "two"), ("before", "after")),
        "gvu_random": minus(plain(tuned), plain(random), ("random grades", "its own")),
        "gvu_weak": gain_minus_gain((plain(start), plain(tuned)), (plain(further), plain(tuned_further))),
        "gvu_understanding": minus(captions, captions_before, ("before", "after")),
    }


# ---- pictures --------------------------------------------------------------------------------------------------------


def thinking(out: Path) -> list[Example]:
    """The first held-out prompt of some families, in the order of the seed: none is chosen by how it came out."""
    sandbox, found = out / "before" / "sandbox", []
    for family in (*MATH[:2], *MAPPING[:2]):
        item = next(iter(make_items([family], num_units=1, seed=1)))
        after = out / family[:-1] / "measured"
        shown: list[tuple[Path, Arm, str]] = [
            (sandbox, "normal", "at once"),
            (sandbox, "think", "after a thought"),
            (after, "normal", "after STARS"),
        ]
        found.append(Example(prompt=item.prompt, pictures=[drawing(f, item.id, a, label) for f, a, label in shown]))
    return found


def rewarded(out: Path) -> list[Example]:
    """The first two prompts of each kind."""
    folders = {"before": out / "pretrain" / "weak", "its own grades": out / "gvu-weak" / "measured"}
    folders["random grades"] = out / "gvu-random" / "measured"
    plain = [item for item in RunFolder.open(folders["before"]).items() if item.family == "plain"]
    chosen = [item for variant in ("one", "two") for item in [i for i in plain if i.variant == variant][:2]]
    return [
        Example(
            prompt=item.prompt,
            pictures=[drawing(folder, item.id, "normal", label) for label, folder in folders.items()],
        )
        for item in chosen
    ]


def drawing(folder: Path, item_id: str, arm: Arm, label: str) -> Picture:
    run, key = RunFolder.open(folder), Key(item_id, "generation", arm, 0)
    record, verdict = run.records().get(key), run.verdicts(JUDGE).get(key)
    assert record is not None and verdict is not None
    return Picture(uri=image_uri(run.load_image(record)), label=label, right=verdict.verdict == "correct")
