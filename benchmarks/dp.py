"""Solvers for large models side by side: tabrl, QuantEcon, Storm, MDPSolver and pymdptoolbox (extra `bench`).

    python benchmarks/dp.py CACHE [--only MODEL ...] [--solver NAME ...] [--runs 3] [--write docs/benchmarks.md]
    python benchmarks/dp.py CACHE --scaling docs
    python benchmarks/dp.py CACHE --list

CACHE is a folder for reference values (a few minutes, once). Every row runs in a process of its own; only solving is
timed. Exits with 1 where a bound of ours is below the true error.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dp_models import MODELS
from dp_peers import PEERS
from dp_reference import saved
from dp_table import document, line, write, yardstick

HERE = Path(__file__).parent
LIMIT = 60.0  # seconds of one row, everything included; the million states get more

GRID = ("auto", "tabrl-mpi", "quantecon-mpi", "storm-discounted", "storm-vi", "storm-ovi")
MIXING = ("auto", "quantecon-mpi", "quantecon-mpi5", "storm-discounted", "mdpsolver-mpi1")
ROOMS = ("auto", "tabrl-gspi", "quantecon-mpi", "quantecon-mpi5", "storm-discounted")
ROWS: dict[str, tuple[str, ...]] = {
    "grid1000": ("auto", "sweeps60", "quantecon-mpi", "storm-vi", "storm-discounted"),
    "grid1000-999": ("auto", "quantecon-mpi", "storm-vi"),
    "grid300": (*GRID, "mdpsolver-mpi1"),
    "grid300-999": ("auto", "quantecon-mpi", "storm-discounted", "storm-vi", "storm-ovi"),
    "grid300-renamed": GRID,
    "garnet-large": MIXING,
    "garnet-small": (*MIXING, "storm-vi", "storm-ovi", "mdpsolver-mpi", "mdpsolver-gs", "toolbox-mpi", "tabrl-pi"),
    "dense": (*MIXING, "toolbox-mpi", "tabrl-pi"),
    "forest": (*MIXING, "storm-vi", "storm-ovi", "mdpsolver-mpi", "mdpsolver-gs", "tabrl-pi"),
    "rooms-99": (*ROOMS, "storm-ovi"),
    "rooms-999": ROOMS,
    "rooms-9999": ("auto", "tabrl-gspi", "quantecon-mpi", "quantecon-mpi5"),
}


def main() -> int:
    """Run the rows that were asked for; return 1 where a bound of ours does not hold."""
    chosen = arguments()
    if chosen.list:
        print(*(f"{name}: {', '.join(ROWS[name])}" for name in MODELS), sep="\n")
        return 0
    chosen.cache.mkdir(parents=True, exist_ok=True)
    if chosen.scaling:
        from dp_plots import plots

        plots(chosen.scaling, run)
        return 0
    found: dict[str, list[dict[str, Any]]] = {}
    for name in chosen.only or MODELS:
        found[name] = list(measured(name, chosen))
    print(yardstick(found).strip())
    if chosen.write:
        write(chosen.write, document(found))
    wrong = [x for rows in found.values() for x in rows if x.get("bound", 1.0) < x.get("error", 0.0)]
    print(*(f"bound below the error: {x['model']} {x['solver']}" for x in wrong), sep="\n")
    return int(bool(wrong))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder of the reference values")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), metavar="MODEL", help="models to run")
    parser.add_argument("--solver", nargs="+", choices=[*PEERS, "sweeps60"], metavar="NAME", help="solvers to run")
    parser.add_argument("--runs", type=int, default=3, help="timed solves of each row (median)")
    parser.add_argument("--write", type=Path, help="Markdown file with the two marker comments")
    parser.add_argument("--scaling", type=Path, help="folder for the two pictures; nothing else is run")
    parser.add_argument("--list", action="store_true", help="say which solver runs on which model")
    return parser.parse_args()


def measured(name: str, chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run the rows of one model and print each as it comes."""
    start = time.perf_counter()
    ref = saved(chosen.cache, name, MODELS[name].build, MODELS[name].linear)
    print(f"\n{MODELS[name].title}: reference within {ref.bound:.1e} ({time.perf_counter() - start:.0f} s)", flush=True)
    limit = LIMIT if not name.startswith("grid1000") else 6 * LIMIT
    for solver in [x for x in ROWS[name] if chosen.solver is None or x in chosen.solver]:
        x = run(name, solver, chosen.runs, chosen.cache / f"{name}.npz", limit)
        print(line(x), flush=True)
        yield x


def run(model: str, solver: str, runs: int, reference: Path | None, limit: float) -> dict[str, Any]:
    """Measure one row in a process of its own, without settings of OpenBLAS that were meant for something else."""
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    script = "dp_sweeps.py" if solver == "sweeps60" else "dp_row.py"
    command = [sys.executable, str(HERE / script), model, solver, str(runs), str(reference or "-")]
    x: dict[str, Any] = {"model": model, "solver": solver}
    try:
        done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return x | {"failed": f"not done in {limit:.0f} s"}
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        return x | {"failed": said[-1] if said else f"exit {done.returncode}"}
    return x | json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
