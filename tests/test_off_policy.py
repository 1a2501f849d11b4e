"""Off-policy Monte Carlo against literal loops and the values of the target policy."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
from models import random_mdp, random_policy

from tabrl import MDP, chain, sample
from tabrl.off_policy import KINDS, off_policy_monte_carlo
from tabrl.trace import last
from tabrl.types import Episode
from tabrl.weights import per_decision_returns, ratios, remaining_products


def recorded(seed: int, n: int, limit: int | None) -> tuple[MDP, list[Episode], Any]:
    """A proper model, episodes of a policy with full support, and another target policy."""
    rng = np.random.default_rng([30, seed])
    mdp = random_mdp(rng, S=4, A=3, gamma=0.9, proper=True)
    mu = np.where(mdp.terminal, 0.0, 1.0)
    mdp = MDP(mdp.P, mdp.R, mdp.gamma, mu=mu / mu.sum(), terminal=mdp.terminal, legal=mdp.legal)
    behaviour = mdp.legal / mdp.legal.sum(1, keepdims=True)
    target = 0.7 * behaviour + 0.3 * random_policy(rng, mdp)
    return mdp, list(islice(sample.episodes(mdp, behaviour, rng, limit=limit), n)), target


def literal(episodes: list[Episode], pi: Any, V: Any, kind: str) -> Any:
    """Sums over visits, from the definitions."""
    V, n, top, bottom = V.copy(), np.zeros(len(V)), np.zeros(len(V)), np.zeros(len(V))
    for x in episodes:
        tail = V[x.s[-1]]
        T = len(x.r)
        for t in range(T):
            G, weight, product, decided, own = 0.0, 1.0, 1.0, 0.0, 1.0
            for k in range(t, T):
                ratio = pi[x.s[k], x.a[k]] / np.exp(x.logp[k])
                product *= ratio
                own *= ratio
                G += weight * x.r[k]
                decided += weight * own * x.r[k]
                weight *= x.discount[k]
            G += weight * tail
            decided += weight * own * tail
            s = x.s[t]
            n[s] += 1
            top[s] += {"ordinary": product * G, "per_decision": decided, "weighted": product * G}[kind]
            bottom[s] += product if kind == "weighted" else 1
        seen = bottom > 0
        V[seen] = top[seen] / bottom[seen]
    return V


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_replay(seed: int, kind: str) -> None:
    mdp, episodes, target = recorded(seed, 10, limit=6)
    V = np.where(mdp.terminal, 0.0, 1.0)
    x = last(off_policy_monte_carlo(episodes, pi=target, V=V, kind=kind))
    expected = literal(episodes, target, V, kind)
    assert abs(x.V - expected).max() <= 1e-12 * max(1.0, abs(expected).max())


@pytest.mark.parametrize("seed", range(10))
def test_on_policy_all_kinds_are_plain_averages(seed: int) -> None:
    mdp, episodes, _ = recorded(seed, 10, limit=None)
    behaviour = mdp.legal / mdp.legal.sum(1, keepdims=True)
    V = np.zeros(mdp.S)
    a, b, c = (last(off_policy_monte_carlo(episodes, pi=behaviour, V=V, kind=k)).V for k in KINDS)
    assert np.allclose(a, b, atol=1e-12 * mdp.R_max)
    assert np.allclose(a, c, atol=1e-12 * mdp.R_max)


@pytest.mark.parametrize("seed", range(5))
def test_targets_are_unbiased_for_the_start(seed: int) -> None:
    """20,000 episodes: mean of the weighted return at the first step; |z| < 6 has a false alarm below 2e-8 in all."""
    from tabrl.off_policy import targets

    mdp, episodes, target = recorded(seed, 20_000, limit=None)
    J = chain.objective(chain.induce(mdp, target), mdp.mu)
    for kind in ("ordinary", "per_decision"):
        first = np.array([targets(x, target, 0.0, kind)[0][0] for x in episodes])
        assert abs(first.mean() - J) / (first.std() / np.sqrt(len(first))) < 6
    total = np.array([targets(x, target, 0.0, "weighted")[1][0] for x in episodes])
    assert abs(total.mean() - 1) / (total.std() / np.sqrt(len(total))) < 6  # the weights average to 1


def test_weights_are_products() -> None:
    rho = np.array([2.0, 0.0, 3.0])
    assert remaining_products(rho).tolist() == [0.0, 0.0, 3.0]
    G = per_decision_returns(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 0.0]), rho)
    assert G.tolist() == [2.0, 0.0, 12.0]
    assert ratios(np.log([0.5]), np.log([0.25])).tolist() == [2.0]


def test_bad_input_is_named() -> None:
    _, episodes, target = recorded(0, 2, limit=6)
    V = np.zeros(4)
    with pytest.raises(ValueError, match="kind is 'best'; one of ordinary, per_decision, weighted"):
        next(off_policy_monte_carlo(episodes, pi=target, V=V, kind="best"))
    with pytest.raises(ValueError, match="pi has 4 rows; 3, the length of V"):
        next(off_policy_monte_carlo(episodes, pi=target, V=np.zeros(3)))
    with pytest.raises(ValueError, match=r"logp_b\[0\] is -inf; an action that was taken"):
        ratios(np.zeros(1), np.array([-np.inf]))
    with pytest.raises(ValueError, match="r, discount and rho have shapes"):
        per_decision_returns(np.zeros(2), np.zeros(2), np.zeros(1))
