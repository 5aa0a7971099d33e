"""Coverage of the intervals of `unigap.gap` by simulation: how often a 95% interval holds the truth.

    python -m bench.coverage [--design independent dependent few] [--clusters 30 100 300] [--num-datasets 4000]

Each cell draws datasets of pairs (understanding, generation) with stated rates and a stated correlation within pairs,
or the largest correlation that the rates allow, and puts them through the functions that print the numbers of a run.

    independent   each unit is its own cluster
    dependent     2, 3 or 4 units a cluster; each unit repeats its cluster's common pair with probability sqrt(.3), so
                  that two units of a cluster have correlation .3
    few           the same with 10 clusters

Pairs of rates whose sum is over 1 are left out: turning right into wrong turns (p, q) into (1 - p, 1 - q), and every
interval here into its mirror image. Prints a Markdown table; exit code 1 if the
difference or the logit of a cell misses its band: .93 and over, .94 to .965 for 100 clusters and more and rates of .1
to .9. Wilson's interval of the first rate stands beside them.
"""

import argparse
import sys
import time

from tests.gap.simulation import cases, coverage


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", nargs="+", default=["independent", "dependent", "few"])
    parser.add_argument("--clusters", nargs="+", type=int, default=[30, 100, 300])
    parser.add_argument("--num-datasets", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start, misses = time.perf_counter(), 0
    print("| design | clusters | correlation | rates | rate | difference | logit |\n" + "| --- " * 7 + "|")
    for case in cases(arguments.design, arguments.clusters):
        cells = []
        for kind, share in coverage(case, arguments.num_datasets, arguments.seed).items():
            low, high = case.band
            misses += (missed := kind != "rate" and not low <= share <= high)
            cells.append(f"{share:.4f}{' !' if missed else ''}")
        rates = f"{case.first}, {case.second}"
        print(
            f"| {case.design} | {case.num_clusters} | {case.correlation} | {rates} | {' | '.join(cells)} |", flush=True
        )
    print(f"\n! misses: {misses}; {time.perf_counter() - start:.0f} s")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
