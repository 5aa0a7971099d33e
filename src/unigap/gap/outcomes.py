"""What models got right, in both directions: the input of `gap_score`."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from unigap.errors import NotComparableError

# M models, U units, D directions (understanding, generation), S samples

Missing = Literal["raise", "drop"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Verdicts of one or more models on the same units, in both directions."""

    models: tuple[str, ...]
    units: tuple[str, ...]
    clusters: tuple[Hashable, ...]
    """The cluster of each unit."""
    right: np.ndarray
    """1 right, 0 wrong, NaN not scored; (models, units, 2, samples), understanding before generation."""

    def __post_init__(self) -> None:
        shape = self.right.shape
        if len(shape) != 4 or shape[:3] != (len(self.models), len(self.units), 2) or len(self.clusters) != shape[1]:
            raise ValueError(
                f"right of shape {shape} for {len(self.models)} models, {len(self.units)} units and "
                f"{len(self.clusters)} clusters; give (models, units, 2, samples)"
            )
        if not np.all(np.isnan(self.right) | (self.right == 0) | (self.right == 1)):
            raise ValueError("outcomes must be 1 (right), 0 (wrong) or NaN (not scored)")

    @property
    def num_scored(self) -> np.ndarray:
        """Scored samples; (models, units, 2)."""
        return np.count_nonzero(~np.isnan(self.right), axis=-1)

    @property
    def rates(self) -> np.ndarray:
        """Mean over scored samples, NaN without any; (models, units, 2)."""
        scored_MUD = self.num_scored
        total_MUD = np.nansum(self.right, axis=-1)
        return np.divide(total_MUD, scored_MUD, where=scored_MUD > 0, out=np.full(total_MUD.shape, np.nan))

    def in_both_directions(self, missing: Missing) -> Self:
        """The units that at least one model has a scored answer to in each direction.

        Args:
            missing: What to do about others: "raise" or "drop".

        Raises:
            NotComparableError: Units lack a direction and `missing` is "raise"; or a model lacks one altogether.
        """
        scored_MUD = np.asarray(self.num_scored > 0)
        lacking_UD = np.asarray(~scored_MUD.any(axis=0))
        if missing == "raise" and lacking_UD.any():
            d = int(lacking_UD.sum(axis=0).argmax())
            rows = np.flatnonzero(lacking_UD[:, d])
            raise NotComparableError(
                f'gap_score: {len(rows)} of {len(self.units)} items have no "{_NAMES[d]}" verdict (first: '
                f'{self.units[rows[0]]}). Ask and judge that direction ("unigap eval", "unigap judge"), or pass '
                'missing="drop".'
            )
        kept_U = np.asarray(~lacking_UD.any(axis=1))
        for model, scored_UD in zip(self.models, scored_MUD[:, kept_U]):
            # A gap of one model is taken where it is scored in both directions.
            if not scored_UD.all(axis=1).any():
                counts = " and ".join(f'{n} "{name}"' for name, n in zip(_NAMES, scored_UD.sum(axis=0)))
                raise NotComparableError(
                    f"gap_score: model {model!r} has no item with verdicts in both directions ({counts} of "
                    f"{int(kept_U.sum())} items). Ask and judge both on the same items."
                )
        return replace(
            self,
            units=tuple(unit for unit, kept in zip(self.units, kept_U) if kept),
            clusters=tuple(cluster for cluster, kept in zip(self.clusters, kept_U) if kept),
            right=self.right[:, kept_U],
        )


_NAMES = ("understanding", "generation")
