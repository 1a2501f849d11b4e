"""Solvers: identities, limits, hand-solved models, and what renaming, shifting and scaling must do."""

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import mdps, random_mdp, random_policy
from rational import at_most, distance, exact_policy_values

from tabrl import MDP, bellman, chain, dp
from tabrl.dp import METHODS, solve
from tabrl.trace import column, last

models = mdps()
EXAMPLES = settings(max_examples=25, deadline=None)


def two_states() -> MDP:
    """Solved by hand: stay in state 1 for 2 a step, so V = (gamma 2 / (1 - gamma), 2 / (1 - gamma))."""
    return MDP([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[1, 0], [2, 2]], 0.9)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_solved_by_hand(method: str) -> None:
    x = solve(two_states(), method)
    assert abs(x.V - [18, 20]).max() <= x.bound <= 1e-8
    assert x.pi[0].tolist() == [0, 1]
    assert np.allclose(x.Q[0], [1 + 0.9 * 18, 18], atol=1e-6)
    assert x.method == method


@EXAMPLES
@given(models)
def test_methods_agree_within_the_sum_of_their_bounds(mdp: MDP) -> None:
    solutions = [solve(mdp, method) for method in METHODS]
    for x in solutions:
        for y in solutions:
            assert abs(x.V - y.V).max() <= x.bound + y.bound


@EXAMPLES
@given(models, st.randoms(use_true_random=False))
def test_renaming_states_and_actions_renames_the_answer(mdp: MDP, random: object) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    s, a = rng.permutation(mdp.S), rng.permutation(mdp.A)
    P = np.asarray(mdp.P.toarray()).reshape(mdp.S, mdp.A, mdp.S) if mdp.is_sparse else mdp.P
    renamed = MDP(P[s][:, a][:, :, s], mdp.r[s][:, a], mdp.gamma, terminal=mdp.terminal[s], legal=mdp.legal[s][:, a])
    x, y = solve(mdp), solve(renamed)
    assert abs(x.V[s] - y.V).max() <= x.bound + y.bound


@EXAMPLES
@given(mdps(terminal=False), st.floats(-5, 5))
def test_a_reward_shift_moves_values_by_shift_over_one_minus_gamma(mdp: MDP, shift: float) -> None:
    moved = MDP(mdp.P, mdp.r + shift, mdp.gamma, legal=mdp.legal)
    x, y = solve(mdp), solve(moved)
    assert abs(x.V + shift / (1 - mdp.gamma) - y.V).max() <= x.bound + y.bound + 1e-12 / (1 - mdp.gamma)


@EXAMPLES
@given(models, st.floats(0.01, 100))
def test_reward_scale_scales_values(mdp: MDP, scale: float) -> None:
    x, y = solve(mdp), solve(MDP(mdp.P, mdp.r * scale, mdp.gamma, terminal=mdp.terminal, legal=mdp.legal))
    assert abs(scale * x.V - y.V).max() <= scale * x.bound + y.bound + 1e-9 * scale * abs(x.V).max()


@EXAMPLES
@given(models)
def test_duplicated_actions_change_nothing(mdp: MDP) -> None:
    P = np.asarray(mdp.P.toarray()).reshape(mdp.S, mdp.A, mdp.S) if mdp.is_sparse else mdp.P
    twice = MDP(
        np.concatenate([P, P], 1),
        np.c_[mdp.r, mdp.r],
        mdp.gamma,
        terminal=mdp.terminal,
        legal=np.c_[mdp.legal, mdp.legal],
    )
    x, y = solve(mdp), solve(twice)
    assert abs(x.V - y.V).max() <= x.bound + y.bound


@EXAMPLES
@given(models)
def test_gamma_zero_takes_the_best_reward(mdp: MDP) -> None:
    for method in METHODS:
        x = solve(replace(mdp, gamma=0.0), method)
        assert abs(x.V - bellman.maximum(mdp.r, mdp.legal)).max() <= max(x.bound, 1e-300)


@EXAMPLES
@given(models)
def test_optimal_values_are_monotone_in_rewards_and_fixed_under_t(mdp: MDP) -> None:
    x = solve(mdp)
    assert abs(bellman.optimality(mdp, x.V) - x.V).max() <= (1 + mdp.gamma) * x.bound
    more = MDP(mdp.P, mdp.r + ~mdp.terminal[:, None], mdp.gamma, terminal=mdp.terminal, legal=mdp.legal)
    y = solve(more)
    assert (y.V + y.bound >= x.V - x.bound).all()


def test_value_iteration_contracts_by_gamma() -> None:
    mdp = random_mdp(np.random.default_rng(0), gamma=0.9)
    residual = column(dp.value_iteration(mdp, tol=1e-6), "residual")
    assert (residual[1:] <= 0.9 * residual[:-1] + 1e-12).all()


def test_modified_policy_iteration_without_policy_sweeps_is_value_iteration() -> None:
    mdp = random_mdp(np.random.default_rng(1), gamma=0.9)
    pairs = list(zip(dp.value_iteration(mdp), dp.modified_policy_iteration(mdp, sweeps=0), strict=False))
    assert len(pairs) > 5
    assert all(abs(x.residual - y.residual) <= 1e-14 and y.bound <= 1.01 * x.bound for x, y in pairs)


def test_many_policy_sweeps_approach_policy_iteration() -> None:
    mdp = random_mdp(np.random.default_rng(2), gamma=0.9, S=8, A=4)
    rounds = last(dp.policy_iteration(mdp)).k
    assert last(dp.modified_policy_iteration(mdp, sweeps=400)).k <= rounds + 2


def test_gauss_seidel_is_a_literal_loop() -> None:
    mdp = random_mdp(np.random.default_rng(3), gamma=0.9, sparse=False)
    V = np.zeros(mdp.S)
    for record in islice(dp.gauss_seidel(mdp), 5):
        for s in range(mdp.S):
            options = [
                mdp.r[s, a] + mdp.gamma * sum(mdp.rows[s * mdp.A + a, x] * V[x] for x in range(mdp.S))
                for a in range(mdp.A)
                if mdp.legal[s, a]
            ]
            V[s] = max(options)
        assert abs(V - record.V).max() <= 1e-12 * max(1, abs(V).max())


def test_prioritized_sweeping_backs_up_the_largest_error_first() -> None:
    """A chain of 20 states with the reward at the end: one pass from the back is enough."""
    n = 20
    P = np.zeros((n, 1, n))
    P[np.arange(n), 0, np.minimum(np.arange(n) + 1, n - 1)] = 1
    R = np.zeros((n, 1))
    R[n - 2] = 1
    mdp = MDP(P, R, 0.9, terminal=np.arange(n) == n - 1)
    assert last(dp.prioritized_sweeping(mdp)).k == 2
    assert last(dp.value_iteration(mdp)).k == n


def test_policy_iteration_keeps_ties_and_stops() -> None:
    """All actions are equally good up to rounding; a rule that switches at any difference may cycle."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        row = rng.dirichlet(np.ones(6), size=6)
        P = np.repeat(row[:, None], 5, 1)
        R = np.repeat(rng.normal(size=(6, 1)), 5, 1)
        records = list(dp.policy_iteration(MDP(P, R, 0.99)))
        assert [x.changed for x in records] == [0]


def test_policy_iteration_improves_every_round() -> None:
    for seed in range(20):
        mdp = random_mdp(np.random.default_rng([5, seed]), S=8, A=4, gamma=0.95)
        V = [x.V for x in dp.policy_iteration(mdp)]
        assert all((b >= a - 1e-9 * max(1, abs(a).max())).all() for a, b in pairwise(V))
        assert len(V) < 20


def test_policy_evaluation_agrees_with_the_direct_solve_and_its_bound_holds() -> None:
    for seed in range(25):
        rng = np.random.default_rng([6, seed])
        mdp = random_mdp(rng)
        pi = random_policy(rng, mdp)
        exact = exact_policy_values(mdp, pi / pi.sum(1, keepdims=True))
        records = list(dp.policy_evaluation(mdp, pi, tol=1e-6))
        assert all(at_most(distance(x.V, exact), x.bound) for x in [*records[::20], records[-1]])
        assert records[-1].bound <= 1e-6
        assert abs(records[-1].V - chain.evaluate(chain.induce(mdp, pi))).max() <= 2e-6


def test_linear_program_duals_are_occupancies() -> None:
    for seed in range(20):
        mdp = random_mdp(np.random.default_rng([8, seed]), gamma=0.9)
        start = np.full(mdp.S, 1 / mdp.S)
        program = dp.linear_program(mdp, start=start)
        assert program.bound < 1e-4 * max(1.0, mdp.R_max)
        visits = program.occupancy.sum(1)
        total = program.occupancy.sum()
        value = (program.occupancy * mdp.r).sum()
        assert np.isclose(value, start @ program.V, rtol=1e-6, atol=1e-7 * mdp.R_max)
        pi = np.where(visits[:, None] > 0, program.occupancy / np.where(visits, visits, 1)[:, None], bellman.one_hot(
            mdp.legal.argmax(1), mdp.A))  # fmt: skip
        d = chain.occupancy(chain.induce(mdp, pi), start)
        assert np.allclose(visits[~mdp.terminal], d[~mdp.terminal], rtol=1e-6, atol=1e-8 * total)


def test_linear_program_refuses_a_start_that_leaves_values_open() -> None:
    with pytest.raises(ValueError, match=r"start\[1\] is 0.0; a positive weight is expected"):
        dp.linear_program(two_states(), start=np.array([1.0, 0.0]))


def test_backward_induction_is_certified_and_equals_value_iteration_from_zero() -> None:
    mdp = random_mdp(np.random.default_rng(9), gamma=0.9)
    for stage, sweep in zip(dp.backward_induction(mdp, 12), dp.value_iteration(mdp), strict=False):
        assert (stage.V == sweep.V).all()
        assert stage.bound < 1e-10 * max(1.0, mdp.R_max)


def test_backward_induction_secretary() -> None:
    """Stop a fair die: with k throws left keep x or throw again; 3.5, 4.25, 14/3 are the known values."""
    P, R = np.zeros((7, 2, 7)), np.zeros((7, 2))
    P[:6, 0, :6] = 1 / 6  # throw again
    P[:6, 1, 6] = 1.0  # keep what shows
    R[:6, 1] = np.arange(1, 7)
    mdp = MDP(P, R, 1.0, terminal=np.arange(7) == 6)
    V = [x.V for x in dp.backward_induction(mdp, 3)]
    expected = [v[:6].mean() for v in V]
    assert np.allclose(expected, [3.5, 4.25, 14 / 3], atol=1e-12)


def test_unknown_method_names_the_close_ones() -> None:
    with pytest.raises(ValueError, match=r"method is 'polcy_iteration'.*did you mean policy_iteration"):
        solve(two_states(), "polcy_iteration")


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan")])
def test_tolerance_must_be_positive(tol: float) -> None:
    with pytest.raises(ValueError, match="tol is"):
        solve(two_states(), tol=tol)


def test_policy_iteration_starts_from_deterministic_policies_only() -> None:
    with pytest.raises(ValueError, match=r"pi\[s=0, a=0\] is 0.5; policy iteration starts from"):
        next(dp.policy_iteration(two_states(), pi=np.full((2, 2), 0.5)))


def test_records_own_their_arrays() -> None:
    for method in ("value_iteration", "gauss_seidel", "prioritized_sweeping", "modified_policy_iteration"):
        records = list(METHODS[method](random_mdp(np.random.default_rng(10), gamma=0.9), tol=1e-3))
        assert not np.shares_memory(records[0].V, records[1].V)


def test_every_state_terminal() -> None:
    mdp = MDP(np.zeros((2, 1, 2)), np.zeros((2, 1)), 0.9, terminal=[True, True])
    for gamma in (0.9, 1.0):
        for method in METHODS:
            x = solve(replace(mdp, gamma=gamma), method)
            assert x.converged
            assert not x.V.any()


def test_starting_values_of_terminal_states_are_zero() -> None:
    mdp = MDP([[[0, 1]], [[0, 1]]], [1, 0], 0.9, terminal=[0, 1])
    with pytest.raises(ValueError, match=r"V\[1\] is 2.0; terminal states have value 0"):
        next(dp.value_iteration(mdp, V=np.array([0.0, 2.0])))
