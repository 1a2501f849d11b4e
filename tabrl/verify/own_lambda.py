"""lambda-returns and TD(lambda) against fractions: row E1.9 of the ledger.

V (S,) values; s (T+1,), r, discount (T,) an episode; lam trace decay; z (S,) traces; delta TD errors.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from tabrl import chain, operators, prediction, rational, returns
from tabrl.verify import enumeration, literal, mistakes, models, recorded
from tabrl.verify.literal import ONE, ZERO
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.recorded import replays

LAMBDAS = (0.0, 0.5, 0.875, 1.0)


def lambdas() -> list[Check]:
    """E1.9: the three forms, their weights, both ends, the operator, all learners, both views, LSTD."""
    forms = [list(c) for c in zip(*three_forms(), strict=True)]
    names = ("weighted n-step returns", "the recursion", "the sum of TD errors")
    return [
        *(agree("E1.9", f"lambda-returns, against {n} in fractions", c) for n, c in zip(names, forms, strict=True)),
        agree("E1.9", "the weights of the n-step returns, cut at the end, add up to 1", list(totals())),
        *ends_of_lambda(),
        agree("E1.9", "expected lambda-return, against the series of backups in fractions", list(series())),
        agree("E1.9", "expected lambda-return, against (I - gamma lam P)^-1 in fractions", list(resolvent())),
        *learners(),
        agree("E1.9", "sum of lambda-return errors, against TD errors times traces", list(views())),
        agree("E1.9", "V of lstd, where TD(lambda) updates sum to 0, in fractions", list(squares())),
        agree("E1.9", "V of lstd with lam = 1, against visit averages in fractions", list(averages())),
    ]


def three_forms() -> Iterator[tuple[Comparison, ...]]:
    """Lambda-returns of the written-out episodes beside each definition."""
    for x in recorded.recordings():
        trace, v = x.trace, literal.along(x.values, x.trace)
        for lam in LAMBDAS:
            y, where = Fraction(lam), f"{x.name}, lam = {lam}"
            found = returns.lambda_returns(x.r, x.discount, x.V[x.s], lam)
            weighted = [literal.lambda_return(trace, v, t, y) for t in range(len(x.r))]
            recursive = literal.recursive_lambda_returns(trace, v, y)
            errors = literal.td_error_lambda_returns(trace, v, y)
            yield tuple(Comparison(where, found, exact) for exact in (weighted, recursive, errors))


def totals() -> Iterator[Comparison]:
    """No rewards, gamma = 1 and values of 1 everywhere: a lambda-return is then the sum of its weights."""
    for T in (1, 2, 6):
        for lam in LAMBDAS:
            found = returns.lambda_returns(np.zeros(T), np.ones(T), np.ones(T + 1), lam)
            yield Comparison(f"{T} steps, lam = {lam}", found, [ONE] * T)


def ends_of_lambda() -> list[Check]:
    """Lam = 0 gives TD(0) targets, lam = 1 Monte Carlo returns."""
    zero, one = list[Comparison](), list[Comparison]()
    for x in recorded.recordings():
        trace, v = x.trace, literal.along(x.values, x.trace)
        for found, lam, n in ((zero, 0.0, 1), (one, 1.0, len(x.r))):
            exact = [literal.n_step_return(trace, v, t, n) for t in range(len(x.r))]
            found.append(Comparison(x.name, returns.lambda_returns(x.r, x.discount, x.V[x.s], lam), exact))
    return [
        agree("E1.9", "lambda-returns with lam = 0, against TD(0) targets in fractions", zero),
        agree("E1.9", "lambda-returns with lam = 1, against Monte Carlo returns in fractions", one),
    ]


def series() -> Iterator[Comparison]:
    """(1 - lam) times the sum of lam^(n-1) T_pi^n V, until lam^n is below 1e-18."""
    for x in models.instances():
        V, total, weight = rational.exact(x.V), [ZERO] * x.mdp.S, Fraction(3, 4)
        for _ in range(30):
            V = mistakes.backup(x.tables, x.pi, V)
            total = [a + weight * b for a, b in zip(total, V, strict=True)]
            weight /= 4
        T = operators.lambda_operator(chain.induce(x.mdp, x.pi), 0.25)
        yield Comparison(f"{x.name}, lam = 0.25", operators.apply(T, x.V), total)


def resolvent() -> Iterator[Comparison]:
    """(I - gamma lam P)^-1 (r + gamma (1 - lam) P V), solved in fractions."""
    for x in models.instances():
        for lam in LAMBDAS:
            P, r = rational.induced(x.tables, x.pi)
            y, V = Fraction(lam), rational.exact(x.V)
            b = [a + (1 - y) * x.tables.gamma * rational.dot(row, V) for a, row in zip(r, P, strict=True)]
            T = operators.lambda_operator(chain.induce(x.mdp, x.pi), lam)
            exact = rational.chain_values(P, b, y * x.tables.gamma)
            yield Comparison(f"{x.name}, lam = {lam}", operators.apply(T, x.V), exact)


def learners() -> list[Check]:
    """TD(lambda) with each trace, true online TD, and the offline algorithm on recorded episodes."""
    backward, online, offline = list[Comparison](), list[Comparison](), list[Comparison]()
    for lam in (0.0, 0.5, 1.0):
        for trace in ("accumulating", "replacing", "dutch"):
            backward += replays(prediction.td_lambda, literal.td_lambda, lam=lam, trace=trace)
        online += replays(prediction.true_online_td, literal.online_lambda_return, lam=lam)
        offline += replays(prediction.lambda_return, literal.offline_lambda_return, lam=lam)
    return [
        agree("E1.9", "V of td_lambda on recorded episodes, against a loop in fractions", backward),
        agree("E1.9", "V of true_online_td, against the online lambda-return algorithm in fractions", online),
        agree("E1.9", "V of lambda_return on recorded episodes, against a loop in fractions", offline),
    ]


def views() -> Iterator[Comparison]:
    """Summed over an episode with V held fixed: G - V at each visit, and delta times the accumulating trace."""
    lam = Fraction(7, 8)
    for x in recorded.recordings():
        G = returns.lambda_returns(x.r, x.discount, x.V[x.s], float(lam))
        forward = np.zeros(len(x.V))
        np.add.at(forward, x.s[:-1], G - x.V[x.s[:-1]])
        trace, backward, z = x.trace, [ZERO] * len(x.V), [ZERO] * len(x.V)
        v = literal.along(x.values, trace)
        for t, (r, d) in enumerate(zip(trace.r, trace.discount, strict=True)):
            z[trace.s[t]] += 1
            delta = r + d * v[t + 1] - v[t]
            backward = [b + delta * y for b, y in zip(backward, z, strict=True)]
            z = [d * lam * y for y in z]
        yield Comparison(x.name, forward, backward)


def squares() -> Iterator[Comparison]:
    """Where the sum of all TD(lambda) updates of a batch is zero."""
    for x in recorded.unique():
        for lam in LAMBDAS:
            seen, V = enumeration.certainty_equivalence(x.x.mdp.S, x.traces, Fraction(lam))
            found = prediction.lstd(x.episodes, S=x.x.mdp.S, lam=lam)[seen]
            yield Comparison(f"{x.x.name}, lam = {lam}", found, V)


def averages() -> Iterator[Comparison]:
    """With lam = 1 on whole episodes: the average return after every visit."""
    for x in recorded.batches(None):
        seen = sorted({s for trace in x.traces for s in trace.s[:-1]})
        V = literal.visit_averages(x.traces, x.x.mdp.S, "every")
        found = prediction.lstd(x.episodes, S=x.x.mdp.S, lam=1.0)
        yield Comparison(x.x.name, found[seen], [V[s] for s in seen])
