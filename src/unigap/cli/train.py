"""`unigap train`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from unigap.cli.common import argument_errors
from unigap.cli.eval import Eval


@dataclass(frozen=True)
class Train:
    """Train a model; "unigap train pretrain --help" lists the settings."""

    what: Annotated[Positional[Literal["pretrain"]], arg(metavar="{pretrain}")]
    """pretrain: the embedded model from scratch, to the weights in the package."""

    def run(self) -> None:
        raise AssertionError("main hands training to its own parser")


def pretrain(arguments: list[str]) -> None:
    """Train, then measure the model on fresh items and write the scores into its card."""
    import json

    from unigap.train.pretrain import PretrainConfig, add_scores, run

    with argument_errors():
        config = tyro.cli(PretrainConfig, args=arguments, prog="unigap train pretrain")
    run(config)
    if config.score_units:
        out = config.out / "scores"
        Eval(
            model=f"tiny:{config.out / 'model'}",
            num_units=config.score_units,
            seed=config.score_seed,
            out=out,
            overwrite=True,
        ).run()
        add_scores(config.out / "model", json.loads((out / "summary.json").read_text(encoding="utf-8")))
