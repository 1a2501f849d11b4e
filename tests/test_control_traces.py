"""Control with eligibility traces: every learner against the book's loops, its neighbours, and exact values."""

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from bits import plain_and_compiled
from models import random_mdp, uniform_policy
from test_control import close, joined, model
from test_control_n_step import draws, episodes, is_drawn, q_of, run

from tabrl import MDP, chain, dp, envs, prediction
from tabrl.control import acting
from tabrl.control import n_step as control_n_step
from tabrl.control import traces as control_traces
from tabrl.control.kernels import Q_LEARNING, SARSA, Moves
from tabrl.control.n_step_kernels import N_STEP_SARSA
from tabrl.control.one_step import OneStep
from tabrl.control.traces_kernels import SARSA_LAMBDA, WATKINS_Q
from tabrl.types import ActionUpdate, Transitions

RUNS = range(32)
RULES = {"sarsa_lambda": SARSA_LAMBDA, "watkins_q": WATKINS_Q}
KINDS = ("accumulating", "replacing", "dutch")
ALPHA, EPS, STEPS = 0.3, 0.3, 400


def learner(name: str, source: Any, seed: int, lam: float, kind: str = KINDS[0], **options: Any) -> Any:
    """A learner with its defaults filled in."""
    given = {"alpha": ALPHA, "eps": EPS, "Q": None, "limit": None, "every": STEPS, "gamma": None, **options}
    rng = np.random.default_rng(seed)
    return control_traces.Traced(RULES[name], lam, kind, source, rng, *given.values())


def literal(
    name: str, lam: float, kind: str, x: Moves, legal: Any, Q: Any, step: Any = None, u: Any = None
) -> tuple[Any, int]:
    """The boxes for tables with a trace for every pair; also how often an action that was not greedy cut them."""
    Q, count, cuts = Q.copy(), np.zeros(Q.shape), 0
    for i, j in episodes(x):
        z = np.zeros(Q.shape)
        for t in range(i, j):
            s, a, r, s_next = int(x.s[t]), int(x.a[t]), float(x.r[t]), int(x.s_next[t])
            if name == "sarsa_lambda":
                assert u is None or is_drawn(Q, legal, s_next, int(x.a_next[t]), EPS, u[t, 0])
                assert u is None or t > i or is_drawn(Q, legal, s, a, EPS, u[t, 3])
                assert t + 1 == j or x.a[t + 1] == x.a_next[t]
                ahead = Q[s_next, x.a_next[t]]
            else:
                assert u is None or is_drawn(Q, legal, s, a, EPS, u[t, 0])
                if t > i and Q[s, a] != max(Q[s, b] for b in np.flatnonzero(legal[s])):
                    z[:] = 0
                    cuts += 1
                ahead = max(Q[s_next, b] for b in np.flatnonzero(legal[s_next]))
            delta = r + (x.discount[t] * ahead if x.discount[t] > 0 else 0.0) - Q[s, a]
            count[s, a] += 1
            alpha = ALPHA if step is None else step(count[s, a])
            z[s, a] = {"accumulating": z[s, a] + 1, "replacing": 1, "dutch": (1 - alpha) * z[s, a] + 1}[kind]
            for b in range(Q.shape[0]):
                for c in range(Q.shape[1]):
                    Q[b, c] += alpha * delta * z[b, c]
                    z[b, c] = x.discount[t] * lam * z[b, c]
    return Q, cuts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("seed", RUNS)
def test_replay(name: str, seed: int, kind: str) -> None:
    mdp, limit = model(seed)
    lam = [0.3, 0.8, 1.0][seed % 3]
    x, Q = run(learner(name, mdp, seed, lam, kind, limit=limit))
    u = np.random.default_rng(seed).random((STEPS, draws(name, mdp)))
    assert close(Q, literal(name, lam, kind, x, mdp.legal, np.zeros((mdp.S, mdp.A)), u=u)[0])
    assert (Q[~mdp.legal] == 0).all()


def test_the_replays_hold_what_they_should() -> None:
    """Self-loops, terminal states, cut episodes, masks, and traces that are cut by actions that are not greedy."""
    loops = ends = limits = masks = cuts = 0
    for seed in RUNS:
        mdp, limit = model(seed)
        x, _ = run(learner("watkins_q", mdp, seed, 0.8, limit=limit))
        loops += bool((x.s == x.s_next).any())
        ends += bool((x.discount == 0).any())
        limits += bool((x.last & (x.discount > 0)).any())
        masks += not mdp.legal.all()
        cuts += literal("watkins_q", 0.8, KINDS[0], x, mdp.legal, np.zeros((mdp.S, mdp.A)))[1] > 0
    assert min(loops, ends, limits, masks, cuts) >= 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_replay_with_a_schedule_and_first_values(name: str, kind: str) -> None:
    mdp, limit = model(6)
    first = np.asfortranarray(np.where(mdp.legal, np.random.default_rng(0).normal(size=(mdp.S, mdp.A)), 0.0))
    assert not first.flags.c_contiguous
    x, Q = run(learner(name, mdp, 6, 0.7, kind, limit=limit, alpha=prediction.harmonic, Q=first, every=1))
    u = np.random.default_rng(6).random((STEPS, draws(name, mdp)))
    assert close(Q, literal(name, 0.7, kind, x, mdp.legal, first, lambda k: 1 / k, u)[0])


# ---- neighbours ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", RUNS)
def test_without_traces_it_is_the_one_step_learner(seed: int, kind: str) -> None:
    """lam = 0: the same draws, the same bits."""
    mdp, limit = model(seed)
    for name, rule in (("sarsa_lambda", SARSA), ("watkins_q", Q_LEARNING)):
        x, Q = run(learner(name, mdp, seed, 0.0, kind, limit=limit))
        y, want = run(OneStep(rule, mdp, np.random.default_rng(seed), ALPHA, EPS, None, limit, STEPS, None))
        assert Q.tobytes() == want.tobytes()
        assert all((p == q).all() for p, q in zip(x, y, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_with_one_action_it_is_td_lambda(name: str, kind: str) -> None:
    """No choice is left: the values are those of prediction on the same transitions."""
    mdp = random_mdp(np.random.default_rng(31), S=5, A=1, gamma=0.9, terminal=True)
    mdp = replace(mdp, mu=~mdp.terminal / (~mdp.terminal).sum())
    x, Q = run(learner(name, mdp, 1, 0.7, kind, limit=20))
    seen = Transitions(x.s, x.s_next, x.r, x.discount, x.last)
    *_, final = prediction.td_lambda([seen], alpha=ALPHA, V=np.zeros(5), lam=0.7, trace=kind)
    assert close(Q[:, 0], final.V)


def test_full_traces_are_monte_carlo_where_no_pair_is_met_twice() -> None:
    """lam = 1 on a line: in an episode each pair moves by alpha (G - Q), as with n = 9 steps."""
    line = MDP(
        np.eye(6)[[1, 2, 3, 4, 5, 5]][:, None], [3, -1, 4, 1, 5, 0], 0.5, terminal=np.arange(6) == 5, mu=np.eye(6)[0]
    )
    first = np.arange(6.0)[:, None] * (np.arange(6) < 5)[:, None]
    _, Q = run(learner("sarsa_lambda", line, 0, 1.0, Q=first, every=50), 50)
    n_step = control_n_step.NStep(
        N_STEP_SARSA, 9, None, line, np.random.default_rng(0), ALPHA, EPS, first, None, 50, None
    )  # fmt: skip
    assert close(Q, run(n_step, 50)[1])


def test_an_exploring_step_keeps_the_traces_if_its_action_is_greedy() -> None:
    """eps = 1, one legal action per state: every step explores and is greedy, so nothing is cut."""
    mdp = random_mdp(np.random.default_rng(31), S=5, A=1, gamma=0.9, terminal=False)
    watkins, sarsa = (learner(name, mdp, 1, 0.9, eps=1.0, limit=7) for name in ("watkins_q", "sarsa_lambda"))
    watkins.draws = sarsa.draws  # the same walk
    x, Q = run(watkins)
    y, want = run(sarsa)
    assert (x.s == y.s).all()
    assert Q.tobytes() == want.tobytes()


# ---- what the learners must converge to ----

STEADY: dict[str, Any] = {"alpha": prediction.power(1.0, 0.7), "every": 400_000, "limit": 50, "lam": 0.6}


@pytest.mark.parametrize("kind", KINDS)
def test_eps_one_evaluates_the_uniform_policy(kind: str) -> None:
    """400,000 steps of size k**-.7: within 5 % of the largest value."""
    mdp = random_mdp(np.random.default_rng(23), S=4, A=3, gamma=0.8, terminal=False)
    x = next(control_traces.sarsa_lambda(mdp, np.random.default_rng(1), eps=1.0, trace=kind, **STEADY))
    exact = q_of(mdp, chain.evaluate(chain.induce(mdp, uniform_policy(mdp))))
    assert abs(x.Q - exact).max() < 0.05 * abs(exact).max()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_watkins_reaches_the_optimum(kind: str, seed: int) -> None:
    """Acting with eps = .5: within 5 % of the largest optimal value, and closer than SARSA(lambda)."""
    mdp = random_mdp(np.random.default_rng([22, seed]), S=4, A=3, gamma=0.8, terminal=False)
    exact = np.where(mdp.legal, dp.solve(mdp).Q, 0.0)
    x, y = (
        next(learn(mdp, np.random.default_rng(seed), eps=0.5, trace=kind, **STEADY))
        for learn in (control_traces.watkins_q, control_traces.sarsa_lambda)
    )
    assert abs(x.Q - exact).max() < 0.05 * abs(exact).max()
    assert abs(x.Q - exact).max() < abs(y.Q - exact).max()


# ---- gymnasium ----


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("world", ["Taxi-v4", "Blackjack-v1"])
def test_gymnasium(name: str, world: str) -> None:
    """The plain loop is the same learner: the replay of what it did gives its values."""
    import gymnasium

    with gymnasium.make(world) as env:
        x = learner(name, env, 5, 0.8, gamma=0.9, every=1, limit=30)
        moves = joined([m for m, _ in islice(x.moves(), 200)])
    assert x.Q.any()
    assert close(x.Q, literal(name, 0.8, KINDS[0], moves, x.legal, np.zeros(x.Q.shape))[0])


@pytest.mark.parametrize("name", RULES)
def test_gymnasium_respects_action_masks_and_cuts(name: str) -> None:
    mdp = next(m for m, _ in map(model, RUNS) if not m.legal.all() and m.terminal.any())
    x = learner(name, envs.TabularEnv(mdp), 1, 0.8, "dutch", gamma=mdp.gamma, limit=4)
    moves = joined([m for m, _ in islice(x.moves(), 400)])
    assert mdp.legal[moves.s, moves.a].all()
    assert (moves.last & (moves.discount > 0)).any()
    assert (moves.discount == np.where(mdp.terminal[moves.s_next], 0.0, mdp.gamma)).all()
    assert close(x.Q, literal(name, 0.8, "dutch", moves, mdp.legal, np.zeros(x.Q.shape))[0])


# ---- bits, and bad input ----


@pytest.mark.parametrize("name", RULES)
def test_every_and_blocks_do_not_change_the_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mdp, limit = model(8)
    finals = set()
    for block in (1, 13, 4096):
        monkeypatch.setattr(acting, "BLOCK", block)
        for every in (1, 5, 40, 1000):
            options: dict[str, Any] = {"lam": 0.9, "alpha": 0.2, "eps": 0.2, "limit": limit, "every": every}
            records = getattr(control_traces, name)(mdp, np.random.default_rng(2), **options)
            final: ActionUpdate = next(islice(records, 1000 // every - 1, None))
            assert final.t == 1000
            finals.add((final.Q.tobytes(), final.delta))
    assert len(finals) == 1


def test_the_list_holds_the_pairs_with_a_trace() -> None:
    """Each once, and no other, even where a trace underflows to 0 in an endless episode."""
    seen = set()
    for lam in (0.9, 1e-200):
        x = learner("sarsa_lambda", random_mdp(np.random.default_rng(1), S=8, A=4, terminal=False), 1, lam, every=1)
        for _ in islice(x.moves(), 300):
            z, pairs, size = x.traces
            assert sorted(pairs[: size[0]]) == np.flatnonzero(z).tolist()
            seen.add(int(size[0]))
    assert {2, 3} <= seen
    assert max(seen) > 10


SCRIPT = """
import numpy as np
from tabrl import envs
from tabrl.control import traces as c
for world, limit in ((envs.cliff(), 50), (envs.frozen_lake(gamma=0.9), 30)):
    for learner in (c.sarsa_lambda, c.watkins_q):
        for kind in ("accumulating", "replacing", "dutch"):
            options = dict(lam=0.8, trace=kind, alpha=0.1, eps=0.1, limit=limit, every=3000)
            x = next(learner(world, np.random.default_rng(7), **options))
            print(x.t, x.delta.hex(), x.Q.tobytes().hex())
"""


def test_same_bits_with_and_without_numba() -> None:
    outputs = plain_and_compiled(SCRIPT)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 12


def test_bad_input_is_named() -> None:
    mdp, _ = model(8)
    rng = np.random.default_rng(0)
    for name in RULES:
        learn = getattr(control_traces, name)
        with pytest.raises(ValueError, match=r"lam is 1.1; a number in \[0, 1\] is expected"):
            learn(mdp, rng, lam=1.1, alpha=0.5)
        with pytest.raises(ValueError, match="trace is 'long'; one of accumulating, replacing, dutch is expected"):
            learn(mdp, rng, lam=0.5, trace="long", alpha=0.5)
        with pytest.raises(ValueError, match=r"alpha is 1.5; a step size in \(0, 1\], or a schedule"):
            learn(mdp, rng, lam=0.5, alpha=1.5)
