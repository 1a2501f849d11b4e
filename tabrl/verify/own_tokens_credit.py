"""PPO for language models against fractions: row E2.2 of the ledger.

B sequences of at most T tokens, some of which do not count; r (B,T) rewards of tokens, v (B,T) values of the prefixes
before them, A advantages; lam in [0, 1]; beta weight of a KL in the reward; o a sequence of probability p.
"""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from tabrl import rational
from tabrl.rational import Row
from tabrl.tokens import credit, draws, train
from tabrl.tokens.critic import Gae
from tabrl.tokens.methods import Method, Penalty
from tabrl.tokens.table import TableCritic
from tabrl.types import F
from tabrl.verify.literal import ZERO
from tabrl.verify.own_tokens import literal_values
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import (
    Table,
    Tiny,
    Written,
    add,
    gradient,
    listed,
    push,
    rollouts,
    scores,
    tinies,
    zeros,
)  # fmt: skip

LAMBDAS = (0.0, 0.5, 0.75, 1.0)
BETA, STEP, ALPHA = 0.25, 0.5, 0.125
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])


def ragged(seed: int) -> F:
    """Numbers in quarters, (B,T), also where no token counts."""
    return np.random.default_rng([7, seed]).integers(-12, 13, MASK.shape) / 4


def by_rows(f: Callable[..., Row], *arrays: F) -> Table:
    """What f says of the tokens of each sequence that count, at their places; 0 elsewhere."""
    found = []
    for i, mask in enumerate(MASK):
        on = np.flatnonzero(mask)
        row = [ZERO] * len(mask)
        for t, y in zip(on, f(*(rational.exact(x[i, on]) for x in arrays)), strict=True):
            row[t] = y
        found.append(row)
    return found


# E2.2


def critic() -> list[Check]:
    """E2.2: rewards of tokens, GAE, mean updates with a right and a wrong critic, KL in the reward, one update."""
    theta, V = zip(*(first_update(x) for x in tinies()), strict=True)
    return [
        agree("E2.2", "outcome at the last token, KL at every token, return to go, in fractions", list(rewards())),
        agree("E2.2", "GAE of ragged sequences, against sums of lam^k delta in fractions", list(errors())),
        agree("E2.2", "mean update with V = V_pi, any lam, against grad J in fractions", list(right_critic())),
        agree("E2.2", "mean update with a wrong V and lam = 1, against grad J in fractions", [
            Comparison(x.name, updates(x, wrong(x), 1.0), gradient(x)) for x in tinies()
        ]),
        agree("E2.2", "mean update with a wrong V, all sequences listed, in fractions", list(wrong_critic())),
        agree("E2.2", "mean update with KL in the reward, against the gradient of E[r] - beta KL", list(penalised())),
        agree("E2.2", "theta after an update of ppo, against sums over its sequences in fractions", theta),
        agree("E2.2", "V of its critic after it, in fractions", V),
    ]  # fmt: skip


def rewards() -> Iterator[Comparison]:
    """All of the outcome where the last token is; what the rest of a sequence is paid."""
    outcome, r = np.array([2.0, -1.0, 0.5, 3.0, 4.0]), ragged(0)
    last: Table = [[ZERO] * MASK.shape[1] for _ in MASK]
    for i, row in enumerate(MASK):
        if row.any():
            last[i][int(np.flatnonzero(row)[-1])] = Fraction(outcome[i])
    yield Comparison("outcome", credit.terminal_rewards(outcome, MASK), last)
    logp, ref = -abs(ragged(1)), -abs(ragged(2))
    k1 = by_rows(lambda a, b: [-Fraction(BETA) * (y - z) for y, z in zip(a, b, strict=True)], logp, ref)
    yield Comparison("KL", credit.kl_rewards(logp, ref, MASK, BETA), k1)
    to_go = by_rows(lambda r: [sum(r[t:], ZERO) for t in range(len(r))], r)
    yield Comparison("to go", credit.token_returns(r, MASK), to_go)


def gae(r: Row, v: Row, lam: Fraction) -> Row:
    """A sum of faded TD errors for each token; nothing follows the last one."""
    after = [*v[1:], ZERO]
    delta = [a + c - b for a, b, c in zip(r, v, after, strict=False)]
    return [sum((lam**k * y for k, y in enumerate(delta[t:])), ZERO) for t in range(len(delta))]


def errors() -> Iterator[Comparison]:
    """Every lam, on masks with gaps."""
    r, v = ragged(3), ragged(4)
    for lam in LAMBDAS:
        exact = by_rows(lambda a, b, lam=lam: gae(a, b, Fraction(lam)), r, v)
        yield Comparison(f"lam = {lam}", credit.token_gae(r, v, MASK, lam), exact)


def updates(x: Tiny, v: F, lam: float, kl: Penalty | None = None) -> F:
    """The mean over all sequences of the estimate of PPO: at ratio 1 it is linear in the advantages."""
    method = Method(credit=Gae(TableCritic(x.task, v), lam, whiten=False), how="constant", kl=kl)
    batch, p = rollouts(x, listed(x)), np.array([float(x.weights[w.k] * w.p) for w in listed(x)])
    ref = x.logp(x.ref)[batch.row, batch.tokens] * batch.mask
    adv = method.credit.advantages(train.scored(method, batch, ref)) * p[:, None]
    table: F = train.gradient(x.policy(), method, batch, adv).reshape(-1, x.task.V)
    return len(p) * x.task.length * table


def wrong(x: Tiny) -> F:
    """Values that are not V_pi."""
    return np.random.default_rng(11).integers(-8, 9, len(x.pi)) / 8


def right_critic() -> Iterator[Comparison]:
    """Whatever lam is, nothing is left of it."""
    for x in tinies():
        V = np.array(literal_values(x)[0], np.float64)
        for lam in LAMBDAS:
            yield Comparison(f"{x.name}, lam = {lam}", updates(x, V, lam), gradient(x))


def paid(w: Written) -> Row:
    """Rewards of tokens without a KL: the outcome comes last."""
    return [*([ZERO] * (len(w.o) - 1)), w.r]


def credited(x: Tiny, V: F, lam: float) -> Table:
    """Sum over sequences of p times scores, weighed by the advantages that V gives."""
    total = zeros(x)
    for w in listed(x):
        A = gae(paid(w), rational.exact(V[list(w.rows)]), Fraction(lam))
        total = add(total, x.weights[w.k] * w.p, scores(x, w, A))
    return total


def wrong_critic() -> Iterator[Comparison]:
    """The mean is that of the advantages it gives."""
    for x in tinies():
        for lam in LAMBDAS:
            yield Comparison(f"{x.name}, lam = {lam}", updates(x, wrong(x), lam), credited(x, wrong(x), lam))


def cost(x: Tiny, w: Written, t: int = 0) -> Fraction:
    """Beta times log of pi / ref over the tokens from t on."""
    ratios = [math.log(x.pi[h][a]) - math.log(x.ref[h][a]) for h, a in zip(w.rows[t:], w.o[t:], strict=True)]
    return Fraction(BETA) * sum(map(Fraction, ratios), ZERO)


def penalised() -> Iterator[Comparison]:
    """The KL of whole sequences: with lam = 1 for any critic, with any lam for the values that include the cost."""
    for x in tinies():
        exact = push(x, lambda w, x=x: w.r - cost(x, w))  # type: ignore[misc]
        mean, weight = [ZERO] * len(x.pi), [ZERO] * len(x.pi)
        for w in listed(x):
            for t, h in enumerate(w.rows):
                mean[h], weight[h] = mean[h] + w.p * (w.r - cost(x, w, t)), weight[h] + w.p
        V = np.array([float(a / b) for a, b in zip(mean, weight, strict=True)])
        for name, v, lam in (("any V", wrong(x), 1.0), ("V with the cost", V, 0.5)):
            kl = Penalty(BETA, "k1", "reward")
            yield Comparison(f"{x.name}, {name}, lam = {lam}", updates(x, v, lam, kl), exact)


def first_update(x: Tiny) -> tuple[Comparison, Comparison]:
    """One epoch at ratio 1, means over tokens, on the sequences that the learner draws."""
    draw, v, policy = draws.Groups(4), wrong(x), x.policy()
    drawn = draw(x.policy(), np.random.default_rng(41)).x
    critic = TableCritic(x.task, v)
    own = Gae(critic, 0.75, step=ALPHA, whiten=False)
    parts: dict[str, Any] = {
        "draw": draw,
        "credit": own,
        "epochs": 1,
        "entropy": 0.0,
        "kl": Penalty(BETA, "k1", "reward"),
    }
    next(train.ppo(x.task, policy, critic, np.random.default_rng(41), step=STEP, reference=x.policy(x.ref), **parts))
    theta, V, n = rational.exact(x.logp()), rational.exact(v), int(drawn.mask.sum())
    known = {(w.k, w.o): w for w in listed(x)}
    moved = list(V)
    for k, o, m in zip(drawn.prompt.tolist(), drawn.tokens.tolist(), drawn.mask.sum(axis=1), strict=True):
        w = known[k, tuple(o[: int(m)])]
        values = [V[h] for h in w.rows]
        r = [a - cost(x, w, t) + cost(x, w, t + 1) for t, a in enumerate(paid(w))]
        A = gae(r, values, Fraction(3, 4))
        theta = add(theta, Fraction(STEP) / n, scores(x, w, A))
        for h, a in zip(w.rows, A, strict=True):
            moved[h] += Fraction(ALPHA) * 2 * a / n
    return Comparison(x.name, policy.table, theta), Comparison(x.name, critic.theta, moved)
