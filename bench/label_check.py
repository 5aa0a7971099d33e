"""Check the labels of many math and mapping items with the tests' independent evaluator.

    python -m bench.label_check [--num-items 1000000] [--seed 0] [--split test]

Run it from the repository's root. Exit code 1 if a label is wrong.
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import islice

from tests.scenes.oracle import complain_about_mapping, complain_about_math

from unigap.scenes import Split, make_units

Check = Callable[[list[dict[str, object]]], str | None]


def math_check(num_operations: int, largest_result: int) -> Check:
    return lambda unit: complain_about_math(unit[0], num_operations=num_operations, largest_result=largest_result)


def mapping_check(hops: int) -> Check:
    return lambda unit: complain_about_mapping(tuple(unit), hops=hops)


CHECKS: dict[str, Check] = {
    "math1": math_check(1, 4),
    "math2": math_check(2, 4),
    "math3": math_check(3, 5),
    "mapping1": mapping_check(1),
    "mapping2": mapping_check(2),
    "mapping3": mapping_check(3),
}
UNITS_A_SEED = 10_000
"""Made, then checked, so that the two can be timed apart; math1 runs out of distinct prompts soon after."""


def check_family(family: str, num_items: int, *, seed: int, split: Split) -> tuple[int, int, float]:
    """Returns items checked, wrong labels, and the seconds it took to make the items."""
    check = CHECKS[family]
    checked = wrong = 0
    making_s = 0.0
    while checked < num_items:
        start = time.perf_counter()
        units = list(islice(make_units(family, seed=seed, split=split), UNITS_A_SEED))
        making_s += time.perf_counter() - start
        seed += 1
        for unit in units:
            checked += len(unit)
            if complaint := check([item.to_json() for item in unit]):
                wrong += 1
                print(f"{unit[0].id} ({unit[0].source}): {complaint}")
    return checked, wrong, making_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-items", type=int, default=1_000_000, help="over all six families")
    parser.add_argument("--seed", type=int, default=0, help="the first; every 10,000 units take the next")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    options = parser.parse_args()
    start = time.perf_counter()
    total = total_wrong = 0
    print(f"{'family':10} {'items':>9} {'wrong':>6} {'items/s made':>13}")
    for family in CHECKS:
        checked, wrong, making_s = check_family(
            family, -(-options.num_items // len(CHECKS)), seed=options.seed, split=options.split
        )
        total, total_wrong = total + checked, total_wrong + wrong
        print(f"{family:10} {checked:9,} {wrong:6} {checked / making_s:13,.0f}", flush=True)
    print(f"{total:,} items checked, {total_wrong} wrong labels, {time.perf_counter() - start:.0f} s")
    return 1 if total_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
