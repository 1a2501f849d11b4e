"""What one backup certifies, against exact rational arithmetic: the middle, the half width and the policy loss."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from models import random_mdp
from rational import at_most, exact_optimal_values, exact_policy_values, shortfall

from tabrl import MDP, bellman, jacobi
from tabrl.bellman import Enclosure, enclosure
from tabrl.mdp import frozen
from tabrl.stopping import changes, enclosed, settled

GAMMAS = (0.0, 0.5, 0.9, 0.9999, 1 - 1e-9)
each_gamma = pytest.mark.parametrize("gamma", GAMMAS)
each_seed = pytest.mark.parametrize("seed", range(16))


def drawn(seed: int, gamma: float, **keywords: Any) -> tuple[MDP, Any]:
    """A model and values that know nothing of it, from small to large."""
    rng = np.random.default_rng([51, seed])
    mdp = random_mdp(rng, gamma=gamma, terminal=seed % 2 == 0, **keywords)
    return mdp, np.where(mdp.terminal, 0.0, rng.normal(size=mdp.S) * 10.0 ** rng.integers(-3, 7))


def off(mdp: MDP, e: float, seed: int) -> MDP:
    """The same model with row sums that differ from 1 by up to e either way, as no check of `MDP` would let pass."""
    scale = 1 + e * np.random.default_rng(seed).choice([-1.0, 1.0], (mdp.S, mdp.A))
    other = MDP(mdp.P, mdp.R, mdp.gamma, terminal=mdp.terminal, legal=mdp.legal)
    if mdp.is_sparse:
        P = mdp.P.copy()
        P.data *= np.repeat(scale.ravel(), np.diff(P.indptr))
    else:
        P = mdp.P * scale[:, :, None]
    object.__setattr__(other, "P", frozen(P))
    return other


def backed_up(mdp: MDP, V: Any) -> tuple[Any, Any, Enclosure]:
    TV, actions = jacobi.optimality(mdp, V)
    return TV, actions, enclosure(mdp, *changes(V, TV), float(abs(V).max()))


def holds(mdp: MDP, V: Any) -> Enclosure:
    """Check all that the enclosure of V claims."""
    TV, actions, found = backed_up(mdp, V)
    V_star = exact_optimal_values(mdp)
    middle = Fraction(found.middle)
    live = np.flatnonzero(~mdp.terminal)
    error = max((abs(V_star[s] - Fraction(float(TV[s])) - middle) for s in live), default=Fraction())
    assert at_most(error, found.half)
    assert at_most(shortfall(V_star, exact_policy_values(mdp, bellman.one_hot(actions, mdp.A))), found.loss)
    assert found.middle == 0.0 or not mdp.terminal.any()
    record = enclosed(mdp, 1, V, TV)
    assert all(at_most(abs(v - Fraction(float(x))), record.bound) for v, x in zip(V_star, record.V, strict=True))
    return found


@each_gamma
@each_seed
def test_it_holds_for_any_values(seed: int, gamma: float) -> None:
    mdp, V = drawn(seed, gamma)
    assert math.isfinite(holds(mdp, V).half)


@each_gamma
@each_seed
def test_it_holds_at_the_float_fixed_point(seed: int, gamma: float) -> None:
    """There the computed changes are 0 and only the rounding term is left; from exact values it is found at once."""
    mdp, _ = drawn(seed, gamma)
    V = np.array([float(v) for v in exact_optimal_values(mdp)])
    for _ in range(50):
        V = bellman.optimality(mdp, V)
    found = holds(mdp, V)
    assert found.half <= 1e-12 * (mdp.R_max + abs(V).max()) / (1 - gamma)


@pytest.mark.parametrize("e", [1e-15, 1e-12, 1e-10])
@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
@each_seed
def test_it_holds_where_row_sums_are_off(seed: int, shift: float, e: float) -> None:
    """All changes far below 0, around it, far above it: then the smaller or the larger rows decide."""
    model, V = drawn(seed, 1 - 1e-9 if e < 1e-10 else 0.9999, masked=False)
    mdp = off(model, e, seed)
    assert mdp.row_error >= e / 2
    V = V - shift * 1e6 * ~mdp.terminal
    assert math.isfinite(holds(mdp, V).half)


def test_nothing_is_claimed_where_row_sums_are_off_by_more_than_the_discount() -> None:
    mdp, V = drawn(1, 1 - 1e-9)
    assert backed_up(off(mdp, 1e-8, 1), V)[2] == (0.0, math.inf, math.inf)
    assert backed_up(off(mdp, 1e-11, 1), V)[2].half < math.inf


def test_nothing_is_claimed_from_changes_that_are_not_numbers() -> None:
    mdp, _ = drawn(1, 0.9)
    for low, high in ((-math.inf, 0.0), (0.0, math.inf), (math.nan, 1.0), (math.inf, math.inf)):
        assert enclosure(mdp, low, high, 1.0) == (0.0, math.inf, math.inf)


def test_without_terminal_states_it_is_the_textbooks_interval() -> None:
    """Puterman (1994), theorem 6.6.3: c (max d - min d) wide, c = gamma / (1 - gamma), up to rounding."""
    for seed in range(1, 40, 2):
        mdp, V = drawn(seed, 0.9)
        TV, _, found = backed_up(mdp, V)
        d, scale = TV - V, 1e-11 * (mdp.R_max + abs(V).max()) / 0.1
        assert abs(found.half - 9 * (d.max() - d.min()) / 2) <= scale
        assert abs(found.middle - 9 * (d.max() + d.min()) / 2) <= scale
        assert abs(found.loss - 9 * (d.max() - d.min())) <= scale


def test_with_terminal_states_it_is_the_interval_from_0() -> None:
    for seed in range(0, 40, 2):
        mdp, V = drawn(seed, 0.9)
        TV, _, found = backed_up(mdp, V)
        d, scale = (TV - V)[~mdp.terminal], 1e-11 * (mdp.R_max + abs(V).max()) / 0.1
        high, low = max(d.max(initial=0.0), 0.0), min(d.min(initial=0.0), 0.0)
        assert abs(found.half - 9 * max(high, -low)) <= scale
        assert abs(found.loss - 9 * (high - low)) <= scale


@pytest.mark.parametrize("reward", [1.0, -1.0])
def test_the_textbooks_interval_is_wrong_where_episodes_end(reward: float) -> None:
    """One step that pays 1 and ends: V_star = 1, but from V = 0 the interval without 0 is 1 + 9 to 1 + 9."""
    mdp = MDP([[[0, 1]], [[0, 1]]], [reward, 0], 0.9, terminal=[0, 1])
    V = np.zeros(2)
    TV, _, found = backed_up(mdp, V)
    d, c = float(TV[0] - V[0]), 0.9 / (1 - 0.9)
    (star, _) = exact_optimal_values(mdp)
    textbook = [Fraction(float(TV[0])) + Fraction(c * d)] * 2  # both ends: all changes are the same
    assert not textbook[0] <= star <= textbook[1]
    assert abs(star - Fraction(float(TV[0]))) <= Fraction(found.half)
    assert holds(mdp, V).middle == 0.0


def test_a_constant_change_is_all_that_is_missing() -> None:
    """Without an end, equal rewards: one backup from anywhere flat gives the answer."""
    mdp = MDP(np.full((4, 2, 4), 0.25), np.full((4, 2), 3.0), 0.999)
    TV, _, found = backed_up(mdp, np.full(4, 100.0))
    assert np.allclose(TV + found.middle, 3000.0, rtol=1e-12)
    assert found.half <= 1e-8


def test_gamma_0_leaves_only_rounding() -> None:
    mdp, V = drawn(3, 0.0)
    found = holds(mdp, V)
    assert (found.middle, found.half <= 1e-14 * (mdp.R_max + abs(V).max())) == (0.0, True)


def test_where_all_has_ended_nothing_is_left_to_know() -> None:
    mdp = MDP(np.zeros((2, 1, 2)), [0, 0], 0.9, terminal=[1, 1])
    assert changes(np.zeros(2), np.zeros(2)) == (0.0, 0.0)
    assert holds(mdp, np.zeros(2)).half < 1e-300


def test_changes_are_the_smallest_and_the_largest() -> None:
    assert changes(np.array([1.0, 2, 0]), np.array([4.0, 1, 0])) == (-1.0, 3.0)


@pytest.mark.parametrize("size", [1.0, 1e8])
def test_a_record_counts_the_rounding_of_its_own_values(size: float) -> None:
    """V + middle is rounded once more: far from 0 that is more than what the backup itself has lost."""
    mdp = MDP([[[1.0]]], [size / 3], 0.5)
    record = enclosed(mdp, 1, np.array([size * 0.7]), bellman.optimality(mdp, np.array([size * 0.7])))
    assert at_most(abs(exact_optimal_values(mdp)[0] - Fraction(float(record.V[0]))), record.bound)
    assert record.bound >= np.spacing(record.V[0]) / 2


def test_records_end_at_the_tolerance_at_the_limit_or_at_the_floor() -> None:
    mdp = MDP([[[0.5, 0.5]], [[0.5, 0.5]]], [1, 0], 0.9)
    V = np.array([float(v) for v in exact_optimal_values(mdp)])
    near = enclosed(mdp, 3, V, bellman.optimality(mdp, V))
    other = V + np.array([0.0, 1.0])
    far = enclosed(mdp, 3, other, bellman.optimality(mdp, other))
    assert settled(mdp, near, 1e-8, 10) and settled(mdp, near, 1e-30, 10)
    assert not settled(mdp, far, 1e-8, 10)
    assert settled(mdp, far, 1e-8, 3) and settled(mdp, far, 10.0, 10)
