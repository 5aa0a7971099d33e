"""All probes of one model, family by family and arm by arm; each is a step that is done once.

OUT/probe.json                     the settings that decide the result
OUT/steps/<family>-<arm>.json      one finished step
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch

from unigap.arms import call_seed, item_seed
from unigap.disk import hold_folder, safe_name, write_files
from unigap.errors import CannotAskError, UnknownNameError
from unigap.gap.intervals import Interval, difference_interval, rate_interval
from unigap.items import Item
from unigap.judges.protocol import Judge
from unigap.judging import check_judge
from unigap.models.inspection import Inspector, Look, States, look_at
from unigap.models.protocol import Model, Request
from unigap.probe.facets import FAMILIES, Facet, cluster_of, draw_items, facets_of, word_counts
from unigap.probe.linear import Probed, probe
from unigap.probe.patching import Bench, Patched, choose_trials, judge_drawings
from unigap.probe.readout import ReadOut, read_out
from unigap.progress import show_progress
from unigap.prompts import find_think_prompt
from unigap.records import Key
from unigap.train.claim import claim

SCHEMA = 1
ProbeArm = Literal["normal", "think"]
ARMS: tuple[ProbeArm, ...] = get_args(ProbeArm)
NUM_THIRDS = 3
"""Runs of queries that are patched apart."""


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What is looked at, and how much of it."""

    families: tuple[str, ...] = FAMILIES
    arms: tuple[ProbeArm, ...] = ARMS
    """normal: from the prompt alone. think: with the model's own thought in the request, which holds the answer."""
    num_train: int = 1600
    """Items of the training split that probes are fitted on, a family."""
    num_test: int = 400
    """Items of the test split that they are asked of."""
    num_trials: int = 200
    """Drawings that are patched, of these."""
    times: tuple[float, ...] = (1.0, 0.5)
    """Of a picture that comes out of noise, when to look; 1 is noise."""
    think_prompt: str = "plan"
    seed: int = 0
    """Of items and drawings."""

    def __post_init__(self) -> None:
        for kind, names, known in (("family", self.families, FAMILIES), ("arm", self.arms, ARMS)):
            for name in names:
                if name not in known:
                    raise UnknownNameError(kind, name, known)


def study(model: Model, judge: Judge, config: ProbeConfig, out: Path) -> dict[str, Any]:
    """Do what is not done yet, and return the results of all steps.

    Raises:
        CannotAskError: The model shows no hidden states.
        CannotJudgeError: The judge cannot read the model's pictures.
        TrainingError: The folder holds probes of other settings.
    """
    inspector = find_inspector(model)
    settings = {"name": model.name, "sha256": model.sha256, "sampling": asdict(model.sampling), "judge": judge.name}
    own = {name: value for name, value in asdict(config).items() if name not in ("families", "arms")}
    claim(out / "probe.json", settings | own)
    steps = []
    with hold_folder(out):
        for family in config.families:
            for arm in config.arms:
                path = out / "steps" / f"{safe_name(family)}-{arm}.json"
                if path.exists():
                    steps.append(json.loads(path.read_text(encoding="utf-8")))
                    continue
                step = json.loads(json.dumps(_step(inspector, judge, family, arm, config)))
                write_files([(path, (json.dumps(step, allow_nan=False, indent=1) + "\n").encode())])
                steps.append(step)
    return {"schema": SCHEMA, **settings, **own, "steps": steps}


def find_inspector(model: Any) -> Inspector:
    """The model's hook.

    Raises:
        CannotAskError: It has none.
    """
    if not hasattr(model, "inspector"):
        raise CannotAskError(f"{model.name} shows no hidden states; probes want tiny, or bagel")
    return cast(Inspector, model.inspector())


def _step(inspector: Inspector, judge: Judge, family: str, arm: ProbeArm, config: ProbeConfig) -> dict[str, Any]:
    """One family in one arm: probes, read-out and patching."""
    model: Model = inspector.model
    train = draw_items(family, config.num_train, seed=config.seed, split="train")
    test = draw_items(family, config.num_test, seed=config.seed, split="test")
    check_judge(judge, model, test, ("generation",))
    requests_of = [ask(model, items, arm, config) for items in (train, test)]
    (train, train_requests), (test, test_requests) = requests_of
    seeds = [_seed(config, item, arm) for item in test]
    fitted_on = look_at(
        inspector,
        train_requests,
        sampling=model.sampling,
        seeds=[_seed(config, item, arm) for item in train],
        times=config.times,
    )
    looked_at = look_at(inspector, test_requests, sampling=model.sampling, seeds=seeds, times=config.times)
    texts = [[_text_of(request) for request in requests] for requests in (train_requests, test_requests)]
    title = f"{model.name}: {family}, {arm}"
    return {
        "family": family,
        "arm": arm,
        "num_train": len(train),
        "num_test": len(test),
        "drawn_right": _drawn_right(judge, test, looked_at),
        "facets": [_facet(inspector, facet, fitted_on, looked_at, texts, title) for facet in facets_of(train, test)],
        "patches": _patches(inspector, judge, test, test_requests, seeds, looked_at, config),
    }


def ask(model: Model, items: Sequence[Item], arm: ProbeArm, config: ProbeConfig) -> tuple[list[Item], list[Request]]:
    """The drawing requests of an arm; items about which the model wrote no thought are left out of `think`."""
    requests = [Request(content=(item.prompt,), purpose="draw") for item in items]
    if arm == "normal":
        return list(items), requests
    prompt = find_think_prompt(config.think_prompt).of("generation")
    kept, thought = [], []
    for start in range(0, len(items), model.batch_size):
        some = items[start : start + model.batch_size]
        outputs = model.answer(
            [Request(content=(item.prompt,), think_prompt=prompt, purpose="draw") for item in some],
            sampling=model.sampling,
            seeds=[call_seed(_seed(config, item, arm), "thought") for item in some],
        )
        for item, output in zip(some, outputs, strict=True):
            if output.text is not None:
                kept.append(item)
                thought.append(Request(content=(item.prompt,), thought=output.text, purpose="draw"))
    return kept, thought


def _seed(config: ProbeConfig, item: Item, arm: ProbeArm) -> int:
    return item_seed(config.seed, Key(item.id, "generation", arm, 0))


def _text_of(request: Request) -> str:
    return " ".join((*(part for part in request.content if isinstance(part, str)), request.thought or ""))


def _drawn_right(judge: Judge, items: Sequence[Item], look: Look) -> dict[str, Any]:
    right = [(item, was) for item, was in zip(items, judge_drawings(judge, items, look.drawings)) if was is not None]
    return of_interval(rate_interval([float(was) for _, was in right], [cluster_of(item) for item, _ in right]))


def of_interval(interval: Interval) -> dict[str, Any]:
    return {"rate": interval.rate, "low": interval.low, "high": interval.high, "num_units": interval.num_units}


# ---- probes ----------------------------------------------------------------------------------------------------------


def _facet(
    inspector: Inspector, facet: Facet, train: Look, test: Look, texts: Sequence[Sequence[str]], title: str
) -> dict[str, Any]:
    """Everything but patching of one thing that an answer says."""
    counts = word_counts([texts[0][row] for row in facet.train_rows], [texts[1][row] for row in facet.test_rows])
    words = probe(torch.from_numpy(counts[0]), facet.train, torch.from_numpy(counts[1]), facet.test)
    return {
        "name": facet.name,
        "classes": facet.test.classes,
        "chance": facet.test.chance,
        "words": _of_probed(words),
        "maps": [
            _map(facet, fitted_on, asked, words, f"{title}, {facet.name}, {asked.kind}")
            for fitted_on, asked in zip(train.states, test.states, strict=True)
        ],
        "read_out": list(_read(inspector, facet, test)),
    }


def _map(facet: Facet, train: States, test: States, words: Probed, title: str) -> dict[str, Any]:
    """A probe for every state at every position."""
    places = [(layer, column) for layer in range(test.values.shape[1]) for column in range(len(test.positions))]
    found: list[Probed] = []
    with show_progress(title, len(places), unit="probes") as tell:
        for layer, column in places:
            train_ND = train.values[list(facet.train_rows), layer, column]
            test_MD = test.values[list(facet.test_rows), layer, column]
            found.append(probe(train_ND, facet.train, test_MD, facet.test))
            tell(1)
    # Chosen without the held-out items, so that what is found there is no best of many.
    best = max(range(len(found)), key=lambda index: found[index].folds)
    return {
        "kind": test.kind,
        "time": test.time,
        "positions": test.positions,
        "num_states": test.values.shape[1],
        "cells": [
            {"layer": layer, "position": test.positions[column], **_of_probed(one)}
            for (layer, column), one in zip(places, found, strict=True)
        ],
        "best": best,
        "over_words": of_interval(difference_interval(found[best].items, words.items, facet.test.clusters)),
    }


def _of_probed(found: Probed) -> dict[str, Any]:
    return {
        "right": of_interval(found.right),
        "control": found.control,
        "selectivity": of_interval(found.selectivity),
        "folds": found.folds,
        "penalty": found.penalty,
    }


def _read(inspector: Inspector, facet: Facet, look: Look) -> Iterator[dict[str, Any]]:
    """Every position that the text head reads, of a facet that a text answer begins with."""
    if not facet.words:
        return
    tokens = [inspector.first_token(word) for word in facet.words]
    for states in (states for states in look.states if states.in_words):
        last = states.values[list(facet.test_rows), -1]
        for column, position in enumerate(states.positions):
            found = read_out(inspector.read_out, last[:, column], facet.test, tokens)
            if found is not None:
                yield {"kind": states.kind, "position": position, **_of_read_out(found)}


def _of_read_out(found: ReadOut) -> dict[str, Any]:
    return {
        "share": of_interval(found.share),
        "another": found.another,
        "difference": of_interval(found.difference),
        "first": of_interval(found.first),
        "probability": found.probability,
        "left_out": found.left_out,
    }


# ---- patching --------------------------------------------------------------------------------------------------------


def _patches(
    inspector: Inspector,
    judge: Judge,
    items: Sequence[Item],
    requests: Sequence[Request],
    seeds: Sequence[int],
    look: Look,
    config: ProbeConfig,
) -> list[dict[str, Any]]:
    trials = choose_trials(items, config.num_trials, seed=config.seed)
    if not trials:
        return []
    sampling = cast(Model, inspector.model).sampling
    bench = Bench(inspector, judge, items, requests, seeds, trials, sampling)
    wanted = [states.at(some) for states in look.states for some in patched_positions(states)]
    found = []
    with show_progress("patching", len(wanted), unit="sets of positions") as tell:
        for states in wanted:
            found.append(_of_patched(bench.put(states)))
            tell(1)
    return found


def patched_positions(states: States) -> list[tuple[str, ...]]:
    """Sets of positions to be patched together: the last token and all four; all queries, and each third of them."""
    match states.kind:
        case "text":
            return [states.positions[-1:], states.positions]
        case "query":
            thirds = [tuple(part.tolist()) for part in np.array_split(np.array(states.positions), NUM_THIRDS)]
            return [states.positions, *thirds]
        case _:
            return []


def _of_patched(found: Patched) -> dict[str, Any]:
    rates = ("follows", "control", "difference", "untouched", "donor", "keeps")
    intervals = {name: of_interval(getattr(found, name)) for name in rates}
    return {"kind": found.kind, "positions": found.positions, **intervals, "unscored": found.unscored}
