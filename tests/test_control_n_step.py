"""n-step control: every learner against the book's loops, its neighbours, and exact values."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from models import random_mdp, uniform_policy
from test_control import close, joined, model

from tabrl import MDP, chain, dp, envs, prediction
from tabrl.control import acting
from tabrl.control import n_step as control_n_step
from tabrl.control.kernels import EXPECTED_SARSA, Q_LEARNING, SARSA, Moves
from tabrl.control.n_step_kernels import N_STEP_EXPECTED_SARSA, N_STEP_SARSA, TREE_BACKUP
from tabrl.control.one_step import OneStep
from tabrl.types import ActionUpdate, Transitions

RUNS = range(32)
RULES = {
    "n_step_sarsa": N_STEP_SARSA,
    "n_step_expected_sarsa": N_STEP_EXPECTED_SARSA,
    "tree_backup": TREE_BACKUP,
}
ALPHA, EPS, STEPS = 0.3, 0.3, 400


def learner(name: str, source: Any, seed: int, n: int, eps_pi: float | None = None, **options: Any) -> Any:
    """A learner with its defaults filled in."""
    given = {"alpha": ALPHA, "eps": EPS, "Q": None, "limit": None, "every": STEPS, "gamma": None, **options}
    return control_n_step.NStep(RULES[name], n, eps_pi, source, np.random.default_rng(seed), *given.values())


def draws(name: str, mdp: MDP) -> int:
    """Uniform numbers per step: action, outcome, start, and where actions are chosen ahead an episode's first.

    None for the start where it comes last and there is only one.
    """
    return 4 if name in ("n_step_sarsa", "sarsa_lambda") else 2 + int(np.count_nonzero(mdp.mu) > 1)


def run(x: Any, steps: int = STEPS) -> tuple[Moves, Any]:
    """Record the moves of the first steps, and the action values after them."""
    parts: list[Moves] = []
    for moves, _ in x.moves():
        parts.append(moves)
        if sum(len(p.r) for p in parts) >= steps:
            break
    return joined(parts), x.Q


def pi_of(Q: Any, legal: Any, s: int, eps: float) -> dict[int, float]:
    """The eps-greedy policy in state s, ties uniform."""
    options = np.flatnonzero(legal[s])
    greedy = [b for b in options if Q[s, b] == max(Q[s, c] for c in options)]
    return {int(b): eps / len(options) + (1 - eps) * (b in greedy) / len(greedy) for b in options}


def expected(Q: Any, legal: Any, s: int, eps: float) -> float:
    return sum(p * float(Q[s, b]) for b, p in pi_of(Q, legal, s, eps).items())


def is_drawn(Q: Any, legal: Any, s: int, a: int, eps: float, u: float) -> bool:
    """Whether the uniform number u draws action a from the eps-greedy policy."""
    options = np.flatnonzero(legal[s])
    if u < eps:
        return bool(a == options[int(u / eps * len(options))])
    return a in options and bool(Q[s, a] >= Q[s, options].max() - 1e-12 * max(1.0, abs(Q[s, options]).max()))


def episodes(x: Moves) -> list[tuple[int, int]]:
    """First move of each episode, and the one after its last."""
    ends = [*(np.flatnonzero(x.last) + 1).tolist(), len(x.r)]
    return [(i, j) for i, j in zip([0, *ends], ends, strict=False) if j > i]


class Book:
    """The boxes of sections 7.2 and 7.5 on recorded moves: S, A, R, D are S[t], A[t], R[t], and the discount D[t]
    that belongs to R[t]. u: the uniform numbers, to check the actions, or None."""

    def __init__(
        self, name: str, n: int, x: Moves, legal: Any, eps_pi: float, Q: Any, step: Any, u: Any = None
    ) -> None:
        self.name, self.n, self.x, self.legal, self.eps_pi, self.u = name, n, x, legal, eps_pi, u
        self.Q, self.count, self.step = Q.copy(), np.zeros(Q.shape), step

    def play(self) -> Any:
        for i, j in episodes(self.x):
            self.episode(i, j)
        return self.Q

    def episode(self, i: int, j: int) -> None:
        x, ahead = self.x, self.name == "n_step_sarsa"
        S, R, D = [int(x.s[i])], [0.0], [1.0]
        A = [int(x.a[i])]
        if ahead:
            self.check(S[0], A[0], i, 3)
        T, t, tau = 10**9, 0, -1
        while tau != T - 1:
            if t < T:
                m = i + t
                if m == j:
                    return  # the record ends within the episode
                if not ahead:
                    self.check(S[t], A[t], m, 0)
                S.append(int(x.s_next[m]))
                R.append(float(x.r[m]))
                D.append(float(x.discount[m]))
                if x.last[m]:
                    T = t + 1
                A.append(int(x.a_next[m]) if ahead else int(x.a[m + 1]) if m + 1 < j else -1)
                if ahead:
                    assert m + 1 >= j or x.a[m + 1] == A[t + 1]
                    self.check(S[t + 1], A[t + 1], m, 0)
            tau = t - self.n + 1
            if tau >= 0:
                G = self.tree(S, A, R, D, t, T, tau) if self.name == "tree_backup" else self.sum(S, A, R, D, T, tau)
                s, a = S[tau], A[tau]
                self.count[s, a] += 1
                self.Q[s, a] += self.step(self.count[s, a]) * (G - self.Q[s, a])
            t += 1

    def sum(self, S: Any, A: Any, R: Any, D: Any, T: int, tau: int) -> Any:
        """R[tau+1] + … + the value of where it ends, unless that is terminal."""
        end = min(tau + self.n, T)
        G = sum(float(np.prod(D[tau + 1 : i])) * R[i] for i in range(tau + 1, end + 1))
        if D[end] > 0:
            W = self.Q[S[end], A[end]] if self.name == "n_step_sarsa" else self.mean(S[end])
            G += float(np.prod(D[tau + 1 : end + 1])) * W
        return G

    def tree(self, S: Any, A: Any, R: Any, D: Any, t: int, T: int, tau: int) -> Any:
        """The loop of the box; at t + 1 = T a cut episode still has its leaf."""
        k = min(t, T - 1)
        G = R[k + 1] + (D[k + 1] * self.mean(S[k + 1]) if D[k + 1] > 0 else 0.0)
        for i in range(k, tau, -1):
            pi = pi_of(self.Q, self.legal, S[i], self.eps_pi)
            others = sum(p * self.Q[S[i], b] for b, p in pi.items() if b != A[i])
            G = R[i] + D[i] * others + D[i] * pi[A[i]] * G
        return G

    def mean(self, s: int) -> float:
        return expected(self.Q, self.legal, s, self.eps_pi)

    def check(self, s: int, a: int, m: int, column: int) -> None:
        """The action is eps-greedy in the values of this moment."""
        assert self.u is None or is_drawn(self.Q, self.legal, s, a, EPS, self.u[m, column])


def constant(k: float) -> float:
    return ALPHA


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", RUNS)
def test_replay(name: str, seed: int, n: int) -> None:
    mdp, limit = model(seed)
    eps_pi = [None, 0.0, 0.6][seed % 3] if name == "tree_backup" else None
    x, Q = run(learner(name, mdp, seed, n, eps_pi, limit=limit))
    u = np.random.default_rng(seed).random((STEPS, draws(name, mdp)))
    book = Book(name, n, x, mdp.legal, EPS if eps_pi is None else eps_pi, np.zeros((mdp.S, mdp.A)), constant, u)
    assert close(Q, book.play())
    assert (Q[~mdp.legal] == 0).all()


@pytest.mark.parametrize("name", RULES)
def test_replay_with_a_schedule_and_first_values(name: str) -> None:
    mdp, limit = model(6)
    first = np.where(mdp.legal, np.random.default_rng(0).normal(size=(mdp.S, mdp.A)), 0.0)
    x, Q = run(learner(name, mdp, 6, 3, limit=limit, alpha=prediction.harmonic, Q=first, every=1))
    u = np.random.default_rng(6).random((STEPS, draws(name, mdp)))
    assert close(Q, Book(name, 3, x, mdp.legal, EPS, first, lambda k: 1 / k, u).play())


@pytest.mark.parametrize("name", RULES)
def test_moves_are_moves_of_the_model(name: str) -> None:
    """Rewards, discounts, ends and limits; an episode starts after an end, and only then."""
    for seed in RUNS:
        mdp, limit = model(seed)
        x, _ = run(learner(name, mdp, seed, 3, limit=limit))
        rows = np.asarray(mdp.rows.toarray() if mdp.is_sparse else mdp.rows).reshape(mdp.S, mdp.A, mdp.S)
        assert (rows[x.s, x.a, x.s_next] > 0).all()
        assert (x.r == chain.entries_of(mdp, x.s * mdp.A + x.a, x.s_next)).all()
        assert (x.discount == np.where(mdp.terminal[x.s_next], 0.0, mdp.gamma)).all()
        assert mdp.legal[x.s, x.a].all()
        for i, j in episodes(x):
            assert mdp.mu[x.s[i]] > 0
            assert (x.s[i + 1 : j] == x.s_next[i : j - 1]).all()
            assert j - i <= limit
            assert x.last[j - 1] == (mdp.terminal[x.s_next[j - 1]] or j - i == limit)


# ---- neighbours ----


@pytest.mark.parametrize("seed", RUNS)
def test_one_step_is_the_one_step_learner(seed: int) -> None:
    """The same draws, the same bits."""
    mdp, limit = model(seed)
    pairs: list[tuple[str, float | None, int]] = [
        ("n_step_sarsa", None, SARSA),
        ("n_step_expected_sarsa", None, EXPECTED_SARSA),
        ("tree_backup", None, EXPECTED_SARSA),
        ("tree_backup", 0.0, Q_LEARNING),
    ]
    for name, eps_pi, rule in pairs:
        x, Q = run(learner(name, mdp, seed, 1, eps_pi, limit=limit))
        y, want = run(OneStep(rule, mdp, np.random.default_rng(seed), ALPHA, EPS, None, limit, STEPS, None))
        assert Q.tobytes() == want.tobytes()
        assert all((p == q).all() for p, q in zip(x, y, strict=True))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("n", [2, 5, 100])
def test_with_one_action_it_is_n_step_td(name: str, n: int) -> None:
    """No choice is left: the values are those of prediction on the same transitions."""
    mdp = random_mdp(np.random.default_rng(31), S=5, A=1, gamma=0.9, terminal=True)
    mdp = MDP(mdp.P, mdp.R, 0.9, terminal=mdp.terminal, mu=~mdp.terminal / (~mdp.terminal).sum())
    x, Q = run(learner(name, mdp, 1, n, limit=20))
    seen = Transitions(x.s, x.s_next, x.r, x.discount, x.last)
    *_, final = prediction.n_step_td([seen], alpha=ALPHA, V=np.zeros(5), n=n)
    waits = len(x.r) - max(np.flatnonzero(x.last), default=-1) - 1
    assert final.t == len(x.r) - min(waits, n - 1)
    assert close(Q[:, 0], final.V)


@pytest.mark.parametrize("name", ["n_step_sarsa", "n_step_expected_sarsa"])
def test_as_many_steps_as_the_episode_is_monte_carlo(name: str) -> None:
    """With alpha = 1/k the values are the averages of the returns of all finished episodes."""
    mdp, _ = model(4)
    assert mdp.terminal.any()
    x, Q = run(learner(name, mdp, 4, 10**9, alpha=prediction.harmonic, eps=1.0), 2000)
    total, n = np.zeros(Q.shape), np.zeros(Q.shape)
    for i, j in episodes(x):
        if x.last[j - 1]:
            for t in range(i, j):
                total[x.s[t], x.a[t]] += sum(mdp.gamma ** (k - t) * x.r[k] for k in range(t, j))
                n[x.s[t], x.a[t]] += 1
    assert n.max() > 10
    assert close(Q, total / np.maximum(n, 1))


def test_a_greedy_tree_stops_where_the_policy_would_not_have_gone() -> None:
    """By hand: s0 -> s1 -a-> end. A non-greedy a leaves max Q(s1,·) in the target of s0, a greedy one its G."""
    P = np.zeros((3, 2, 3))
    P[0, :, 1], P[1:, :, 2] = 1, 1
    mdp = MDP(P, [[0, 0], [8, 0], [0, 0]], 0.5, terminal=[0, 0, 1], mu=[1, 0, 0])
    first = np.array([[0.0, 0.0], [2.0, 4.0], [0.0, 0.0]])
    seen = set()
    for seed in range(24):
        x, Q = run(learner("tree_backup", mdp, seed, 2, 0.0, alpha=1.0, eps=1.0, Q=first, every=2), 2)
        taken = int(x.a[1])
        seen.add((int(x.a[0]), taken))
        assert Q[0, x.a[0]] == 0.5 * (4.0 if taken == 0 else 0.0)
        assert Q[1, taken] == (8.0 if taken == 0 else 0.0)
    assert len(seen) == 4


# ---- what the learners must converge to ----

STEADY: dict[str, Any] = {"alpha": prediction.power(1.0, 0.7), "every": 400_000, "limit": 50, "n": 3}


def q_of(mdp: MDP, V: Any) -> Any:
    return np.where(mdp.legal, mdp.r + mdp.gamma * (mdp.rows @ V).reshape(mdp.S, mdp.A), 0.0)


@pytest.mark.parametrize("name", RULES)
def test_eps_one_evaluates_the_uniform_policy(name: str) -> None:
    """400,000 steps of size k**-.7: within 5 % of the largest value."""
    mdp = random_mdp(np.random.default_rng(23), S=4, A=3, gamma=0.8, terminal=False)
    x = next(getattr(control_n_step, name)(mdp, np.random.default_rng(1), eps=1.0, **STEADY))
    exact = q_of(mdp, chain.evaluate(chain.induce(mdp, uniform_policy(mdp))))
    assert abs(x.Q - exact).max() < 0.05 * abs(exact).max()


@pytest.mark.parametrize("seed", range(4))
def test_a_greedy_tree_reaches_the_optimum(seed: int) -> None:
    """Off-policy: acting with eps = .5; within 5 % of the largest optimal value, n-step SARSA further away."""
    mdp = random_mdp(np.random.default_rng([22, seed]), S=4, A=3, gamma=0.8, terminal=False)
    x = next(control_n_step.tree_backup(mdp, np.random.default_rng(seed), eps=0.5, eps_pi=0.0, **STEADY))
    exact = np.where(mdp.legal, dp.solve(mdp).Q, 0.0)
    assert abs(x.Q - exact).max() < 0.05 * abs(exact).max()
    y = next(control_n_step.n_step_sarsa(mdp, np.random.default_rng(seed), eps=0.5, **STEADY))
    assert abs(x.Q - exact).max() < abs(y.Q - exact).max()


def test_a_tree_with_exploration_reaches_the_best_exploring_policy() -> None:
    """eps_pi = .4 and eps = .9: the fixed point is found by policy iteration among eps-greedy policies."""
    mdp = random_mdp(np.random.default_rng([22, 0]), S=4, A=3, gamma=0.8, terminal=False)
    pi = uniform_policy(mdp)
    for _ in range(50):
        exact = q_of(mdp, chain.evaluate(chain.induce(mdp, pi)))
        top = np.where(mdp.legal, exact, -np.inf).argmax(1)
        pi = 0.4 * uniform_policy(mdp) + 0.6 * np.eye(mdp.A)[top]
    x = next(control_n_step.tree_backup(mdp, np.random.default_rng(0), eps=0.9, eps_pi=0.4, **STEADY))
    assert abs(x.Q - exact).max() < 0.05 * abs(exact).max()


# ---- gymnasium ----


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("world", ["Taxi-v4", "Blackjack-v1"])
def test_gymnasium(name: str, world: str) -> None:
    """The plain loop is the same learner: the replay of what it did gives its values."""
    import gymnasium

    with gymnasium.make(world) as env:
        x = learner(name, env, 5, 4, 0.6, gamma=0.9, every=1, limit=30)
        moves = joined([m for m, _ in islice(x.moves(), 300)])
    assert x.Q.any()
    assert close(x.Q, Book(name, 4, moves, x.legal, 0.6, np.zeros(x.Q.shape), constant).play())


@pytest.mark.parametrize("name", RULES)
def test_gymnasium_respects_action_masks_and_cuts(name: str) -> None:
    mdp = next(m for m, _ in map(model, RUNS) if not m.legal.all() and m.terminal.any())
    x = learner(name, envs.TabularEnv(mdp), 1, 3, gamma=mdp.gamma, limit=4)
    moves = joined([m for m, _ in islice(x.moves(), 400)])
    assert mdp.legal[moves.s, moves.a].all()
    assert (moves.last & (moves.discount > 0)).any()
    assert (moves.discount == np.where(mdp.terminal[moves.s_next], 0.0, mdp.gamma)).all()
    assert close(x.Q, Book(name, 3, moves, mdp.legal, EPS, np.zeros(x.Q.shape), constant).play())


# ---- bits, and bad input ----


@pytest.mark.parametrize("name", RULES)
def test_every_and_blocks_do_not_change_the_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, limit = model(8)
    finals = set()
    for block in (1, 13, 4096):
        monkeypatch.setattr(acting, "BLOCK", block)
        for every in (1, 5, 40, 1000):
            options: dict[str, Any] = {"n": 6, "alpha": prediction.harmonic, "eps": 0.2, "limit": limit, "every": every}
            records = getattr(control_n_step, name)(mdp, np.random.default_rng(2), **options)
            final: ActionUpdate = next(islice(records, 1000 // every - 1, None))
            assert final.t == 1000
            finals.add((final.Q.tobytes(), final.delta))
    assert len(finals) == 1


SCRIPT = """
import numpy as np
from tabrl import envs
from tabrl.control import n_step as c
for world, limit in ((envs.cliff(), 50), (envs.frozen_lake(gamma=0.9), 30)):
    for learner in (c.n_step_sarsa, c.n_step_expected_sarsa, c.tree_backup):
        x = next(learner(world, np.random.default_rng(7), n=4, alpha=0.1, eps=0.1, limit=limit, every=3000))
        print(x.t, x.delta.hex(), x.Q.tobytes().hex())
"""


def test_same_bits_with_and_without_numba() -> None:
    outputs = plain_and_compiled(SCRIPT)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 6


def test_bad_input_is_named() -> None:
    mdp, _ = model(8)
    rng = np.random.default_rng(0)
    for name in RULES:
        for n in (0, 2.5, float("inf"), float("nan")):
            with pytest.raises(ValueError, match=f"n is {n}; a whole number of steps, 1 or more, is expected"):
                getattr(control_n_step, name)(mdp, rng, n=n, alpha=0.5)
        with pytest.raises(ValueError, match=r"alpha is 1.5; a step size in \(0, 1\], or a schedule"):
            getattr(control_n_step, name)(mdp, rng, n=2, alpha=1.5)
        with pytest.raises(ValueError, match=r"eps is 2; a number in \[0, 1\] is expected"):
            getattr(control_n_step, name)(mdp, rng, n=2, alpha=0.5, eps=2)
    with pytest.raises(ValueError, match=r"eps_pi is -1.0; a number in \[0, 1\] is expected"):
        control_n_step.tree_backup(mdp, rng, n=2, alpha=0.5, eps_pi=-1)
