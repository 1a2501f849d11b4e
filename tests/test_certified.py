"""The certificates against exact rational arithmetic. `benchmarks/certified.py` runs the same on 2,000 models."""

from fractions import Fraction

import numpy as np
import pytest
from models import random_mdp
from rational import at_most, distance, exact_optimal_values, exact_policy_values, shortfall

from tabrl import MDP, bellman, dp
from tabrl.dp import METHODS, solve

SWEEPS = ("value_iteration", "gauss_seidel", "prioritized_sweeping")


def draw(rng: np.random.Generator) -> MDP:
    """A random model: gamma from .5 to .999, and .9999 in 2 % of them."""
    gamma = 0.9999 if rng.random() < 0.02 else float(1 - 10 ** rng.uniform(-3, np.log10(0.5)))
    return random_mdp(rng, gamma=gamma)


def violations(mdp: MDP) -> list[str]:
    """Everything that a certificate claims about this model and that is not true."""
    wrong = []
    V_star = exact_optimal_values(mdp)
    solutions = {method: solve(mdp, method) for method in METHODS}
    for method, x in solutions.items():
        if not at_most(distance(x.V, V_star), x.bound):
            wrong.append(f"{method}: error {float(distance(x.V, V_star))} above bound {x.bound}")
        loss = shortfall(V_star, exact_policy_values(mdp, x.pi))
        if not at_most(loss, x.policy_loss_bound):
            wrong.append(f"{method}: policy loss {float(loss)} above {x.policy_loss_bound}")
        if x.converged != (x.bound <= 1e-8) or (x.status == "certified") != x.converged:
            wrong.append(f"{method}: converged is {x.converged} at bound {x.bound}, status {x.status}")
        if not np.isfinite(x.bound):
            wrong.append(f"{method}: no certificate at gamma = {mdp.gamma}")
    for m, x in solutions.items():
        for n, y in solutions.items():
            if not at_most(max(Fraction(float(d)) for d in abs(x.V - y.V)), x.bound + y.bound):
                wrong.append(f"{m} and {n} differ by more than the sum of their bounds")
    return wrong


@pytest.mark.parametrize("seed", range(60))
def test_bounds_contain_the_true_error_of_every_method(seed: int) -> None:
    assert violations(draw(np.random.default_rng([2, seed]))) == []


@pytest.mark.parametrize("method", SWEEPS)
def test_every_record_of_a_sweep_method_is_certified(method: str) -> None:
    for seed in range(15):
        mdp = random_mdp(np.random.default_rng([3, seed]))
        V_star = exact_optimal_values(mdp)
        for record in list(METHODS[method](mdp, tol=1e-4))[:200]:
            assert at_most(distance(record.V, V_star), record.bound)


def test_the_textbook_bound_without_rounding_is_optimistic() -> None:
    """Why the rounding term exists: the residual alone is below the true error at a float fixed point."""
    optimistic = 0
    for seed in range(40):
        mdp = random_mdp(np.random.default_rng([4, seed]), gamma=0.9, S=8)
        V = np.zeros(mdp.S)
        for _ in range(600):
            V = bellman.optimality(mdp, V)
        error = distance(V, exact_optimal_values(mdp))
        textbook = Fraction(float(abs(bellman.optimality(mdp, V) - V).max())) / (1 - Fraction(mdp.gamma))
        optimistic += error > textbook
        assert at_most(error, bellman.certified_bound(mdp, V))
    assert optimistic >= 30


def test_certificate_is_not_wasteful() -> None:
    """Half-way through a run the bound is within a factor of the true error that the contraction explains."""
    mdp = MDP([[[0.5, 0.5]], [[0.25, 0.75]]], [1.0, 0.0], 0.9)
    V_star = exact_optimal_values(mdp)
    for record in list(dp.value_iteration(mdp, tol=1e-6))[20:]:
        assert record.bound <= 1.2 * float(distance(record.V, V_star)) / 0.9


@pytest.mark.parametrize("seed", range(25))
def test_proper_models_at_gamma_one_are_certified(seed: int) -> None:
    mdp = random_mdp(np.random.default_rng([5, seed]), gamma=1.0, proper=True)
    V_star = exact_optimal_values(mdp)
    for method in METHODS:
        x = solve(mdp, method)
        assert np.isfinite(x.bound)
        assert at_most(distance(x.V, V_star), x.bound)
        assert at_most(shortfall(V_star, exact_policy_values(mdp, x.pi)), x.policy_loss_bound)


def test_the_tolerance_floor_is_named() -> None:
    mdp = MDP(np.full((8, 1, 8), 0.125), np.arange(8.0), 0.999)
    for method in METHODS:
        x = solve(mdp, method, tol=1e-13)
        assert (x.status, x.converged) == ("rounding floor", False)
        assert 1e-13 < x.bound < 1e-7


def test_the_iteration_limit_is_named() -> None:
    mdp = MDP(np.eye(8)[:, None], np.arange(8.0), 0.99)
    x = solve(mdp, "value_iteration", limit=7)
    assert (x.status, x.iterations, x.converged) == ("iteration limit", 7, False)
    assert at_most(distance(x.V, exact_optimal_values(mdp)), x.bound)
