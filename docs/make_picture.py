"""Draw docs/report.png, the picture of the README: run `python docs/make_picture.py`."""

from pathlib import Path

from tabrl import dp, envs, plots
from tabrl.output import write
from tabrl.reference import reference
from tabrl.report import maximisers


def main() -> None:
    """Two worlds with their optimal values and actions, and a bound that stays above the true error."""
    figure = plots.new_figure(12.0, 4.2)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    jumps = envs.grid5x5()
    for ax, world, title in (
        (left, jumps, "5 x 5 grid with jumps A to a, B to b"),
        (middle, envs.frozen_lake(), "frozen lake: chance of arriving"),
    ):
        exact = reference(world)
        plots.grid_values(ax, world, exact.V.astype(float), maximisers(world, exact))
        ax.set_title(title, fontsize=12)
    plots.convergence(right, dp.value_iteration(jumps, tol=1e-15), V_star=reference(jumps).V, gamma=jumps.gamma)
    right.set_title("5 x 5 grid: what is proved, and what is true", fontsize=12)
    write(Path(__file__).with_name("report.png"), plots.image(figure, dpi=100))


if __name__ == "__main__":
    main()
