"""`python -m tests.bench.growth`: the experiments H1 to H5, and the simulation of the sequential rule.

Takes about an hour on two cores in full, most of it H2; `--only h1,h3` picks, `--quick` takes two random seeds of H1
and less of the others.
"""

import torch

from tests.bench.growth import harmless, headline, peeking, pick, poison
from tests.bench.growth.pool import default_workers
from tests.bench.report import Row, arguments, publish

EXPERIMENTS = ("h1", "h2", "h3", "h4", "h5", "simulation")
QUICK = ("h1", "h3", "simulation")


def main() -> None:
    """Run what was asked for and print it."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", default="", help="comma-separated: h1, h2, h3, h4, h5, simulation")
    parser.add_argument("--workers", type=int, default=default_workers(), help="worker processes")
    parser.add_argument(
        "--random-seeds", type=int, default=0, help="for every experiment; 0: 12 for H1, 5 for H2, 6 else"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    names = chosen.only.split(",") if chosen.only else list(QUICK if chosen.quick else EXPERIMENTS)
    unknown = set(names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"unknown experiments: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for name in names:
        rows += _run(name, chosen.random_seeds or (2 if chosen.quick else 0), chosen.workers)
    publish(rows, as_json=chosen.json)


def _run(name: str, num_seeds: int, num_workers: int) -> list[Row]:
    match name:
        case "h1":
            return headline.run(headline.RESCUE, range(num_seeds or 12), num_workers)
        case "h2":
            return headline.run(headline.SATURATED, range(num_seeds or 5), num_workers)
        case "h3":
            return harmless.run(range(num_seeds or 6), num_workers)
        case "h4":
            return poison.run(range(num_seeds or 6), num_workers)
        case "h5":
            return pick.run(range(num_seeds or 6), num_workers)
        case _:
            return peeking.run(500 if num_seeds else 2000)


if __name__ == "__main__":
    main()
