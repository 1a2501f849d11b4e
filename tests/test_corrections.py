"""Corrections to the source, as experiments in exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from tabrl import MDP, dp, rational
from tabrl.lessons import correction_9 as lesson

NAMES = ("one maximising action", "all maximising actions, mixed", "anything where it never goes")


@pytest.fixture(scope="module")
def found() -> dict[str, lesson.Finding]:
    return {x.name: x for x in lesson.experiment()}


def test_the_exact_values_are_optimal_and_those_of_the_package() -> None:
    mdp = lesson.world()
    V = lesson.optimal_values(mdp)
    Q = rational.action_values(rational.tables(mdp), V)
    assert [max(q) for q in Q] == V
    solution = dp.solve(mdp)
    assert max(abs(Fraction(float(v)) - x) for v, x in zip(solution.V, V, strict=True)) <= solution.bound


def test_mixing_tied_actions_is_optimal(found: dict[str, lesson.Finding]) -> None:
    first, mixed = found[NAMES[0]], found[NAMES[1]]
    assert ((mixed.pi > 0) & (mixed.pi < 1)).any()
    assert not np.array_equal(first.pi, mixed.pi)
    assert first.loss == mixed.loss == [0] * len(first.loss)
    assert first.J == mixed.J


def test_unequal_mixtures_of_ties_are_optimal_too() -> None:
    mdp = lesson.world()
    best = lesson.maximising(mdp)
    weight = np.random.default_rng(3).random(best.shape) * best
    pi = weight / weight.sum(1, keepdims=True)
    V, V_star = rational.exact_policy_values(mdp, pi), lesson.optimal_values(mdp)
    excess = max(abs(sum(row, Fraction(-1))) for row in rational.exact(pi))  # rows of floats add up to 1 + excess
    assert max(abs(a - b) for a, b in zip(V, V_star, strict=True)) <= 1000 * excess
    assert excess < Fraction(1, 2**50)


def test_a_policy_may_do_anything_where_it_never_goes(found: dict[str, lesson.Finding]) -> None:
    best, careless = found[NAMES[0]], found[NAMES[2]]
    assert careless.J == best.J
    lost = np.array([y > 0 for y in careless.loss])
    assert lost.any()
    assert not (lost & careless.visited).any()
    assert not (careless.pi * lesson.maximising(lesson.world()))[lost].any()


def test_optimal_for_j_needs_exactly_the_visited_states(found: dict[str, lesson.Finding]) -> None:
    """One bad action in a visited state costs J; the same in a state that is not visited does not."""
    mdp, best = lesson.world(), found[NAMES[0]]
    maximising = lesson.maximising(mdp)
    mu = rational.exact(mdp.mu)
    tried = 0
    for s in np.flatnonzero(~mdp.terminal & ~maximising.all(1)):
        pi = best.pi.copy()
        pi[s] = np.eye(mdp.A)[np.argmin(maximising[s])]
        V = rational.exact_policy_values(mdp, pi)
        assert V[s] < lesson.optimal_values(mdp)[s]
        assert (rational.dot(mu, V) < best.J) == bool(best.visited[s])
        tried += 1
    assert tried == mdp.S - 1


def test_with_a_start_everywhere_the_largest_j_needs_every_state(found: dict[str, lesson.Finding]) -> None:
    mdp = lesson.world()
    spread = MDP(mdp.P, mdp.R, mdp.gamma, terminal=mdp.terminal)
    assert (spread.mu[~mdp.terminal] > 0).all()
    J = [lesson.find(spread, name, found[name].pi).J for name in NAMES]
    assert J[0] == J[1]
    assert J[2] < J[0]


def test_at_gamma_1_a_maximising_policy_can_wait_for_ever() -> None:
    mdp = lesson.waiting_room()
    best, value = lesson.waiting()
    assert best == 1
    assert value == 0
    t = rational.tables(mdp)
    assert rational.action_values(t, rational.brute_force(mdp))[0] == [1, 1]  # both actions are maximising
    solution = dp.solve(mdp)
    assert solution.pi[0].tolist() == [0, 1]
    assert solution.converged


def test_below_gamma_1_every_maximising_policy_is_optimal() -> None:
    rng = np.random.default_rng(7)
    mdp = lesson.world()
    best, V_star = lesson.maximising(mdp), lesson.optimal_values(mdp)
    for _ in range(5):
        pi = np.eye(mdp.A)[np.where(best, rng.random(best.shape), -1.0).argmax(1)]
        assert rational.exact_policy_values(mdp, pi) == V_star


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.figure import Figure

    lesson.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(name in line for name, line in zip(NAMES, lines, strict=False))
    fig = Figure(figsize=(13, 4), layout="constrained")
    lesson.figure(fig)
    fig.draw_without_rendering()
    titles = [ax.get_title() for ax in fig.axes[:3]]
    assert all(title.startswith(name) for title, name in zip(titles, NAMES, strict=True))
    assert "in 0 states" in titles[1]
    assert "in 9 states" in titles[2]
