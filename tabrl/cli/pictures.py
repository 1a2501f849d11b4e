"""The command `tabrl figure`: draw a figure of learning, of policy gradients or of tokens, beside what is exact."""

import argparse

from tabrl.cli.parts import DONE, UsageError, console, figure_file, known


def figure_arguments(p: argparse.ArgumentParser) -> None:
    """Arguments of `tabrl figure`."""
    p.add_argument("name", nargs="?", metavar="NAME", help="7.2, example-6.6, gae, …; without a name all are listed")
    p.add_argument("--plot", metavar="FILE", help="a .png, .svg or .pdf file (default: figure-NAME.png)")
    p.add_argument("--runs", type=int, metavar="N", help="independent runs (default: as listed)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all runs (default: 0)")


def figure(options: argparse.Namespace) -> int:
    """Compute and draw one figure, or list them."""
    from tabrl.figures.gallery import FIGURES

    if options.name is None:
        return listing()
    known(options.name, FIGURES, "figure")
    picture = FIGURES[options.name]
    runs = picture.runs if options.runs is None else options.runs
    if runs < 2:
        raise UsageError(f"--runs is {runs}; 2 or more are expected, as the figure shows an interval")
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}; a whole number >= 0 is expected")
    path = options.plot or f"figure-{options.name}.png"
    figure_file(path)
    draw(options.name, path, runs, options.seed)
    console().print(f"wrote {path}: {picture.summary}, {runs:,} runs", soft_wrap=True)
    return DONE


def listing() -> int:
    """Print one line per figure."""
    from rich.table import Table

    from tabrl.figures.gallery import FIGURES

    table = Table(box=None, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("runs", justify="right")
    table.add_column("drawn anew with exact lines; numbers are those of Sutton & Barto (2018)")
    for name, picture in FIGURES.items():
        table.add_row(name, f"{picture.runs:,}", picture.summary)
    console().print(table)
    return DONE


def draw(name: str, path: str, runs: int, seed: int) -> None:
    """Write a figure, whole or not at all."""
    from pathlib import Path

    import joblib
    import numpy as np

    from tabrl import plots
    from tabrl.figures.gallery import FIGURES
    from tabrl.output import write

    with joblib.parallel_config(n_jobs=-1):
        drawn = FIGURES[name].draw(np.random.default_rng(seed), runs)
    write(path, plots.image(drawn, kind=Path(path).suffix[1:]))
