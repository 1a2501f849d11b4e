"""The best policy at a price for leaving the reference, and where other penalties come to rest: row E2.7 of the ledger.

beta = 1 / log 2, so that exp(r / beta) = 2^r and whole-numbered outcomes r keep everything in fractions; Z sums of
ref 2^r; p chance of success, z its logit.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

import numpy as np

from tabrl.rational import Row
from tabrl.tokens import amplification, exact, recursion, regularised, stationary
from tabrl.types import F
from tabrl.verify.literal import ZERO
from tabrl.verify.own_tokens_groups import weight
from tabrl.verify.own_tokens_kl import slope
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import Table, Tiny, binary, gradient, listed, prefixes, tinies, zeros

BETA = 1 / math.log(2)


def optimum() -> list[Check]:
    """E2.7: the optimum by sequence and by token, its value, the recursion of success, other resting points."""
    return [
        agree("E2.7", "optimum over sequences, ref exp(r / beta) / Z, in fractions", list(sequences())),
        agree("E2.7", "optimum token by token, against sums over sequences in fractions", list(by_tokens())),
        agree("E2.7", "its soft values, beta log of sums over sequences", list(soft_values())),
        agree("E2.7", "gradient of E[r] - beta KL there, 0", list(still())),
        agree("E2.7", "success after steps of normalised advantages, against ref exp(A / beta)", list(steps())),
        agree("E2.7", "its first step, against the optimum of a task", list(first_steps())),
        agree("E2.7", "fixed points, against iterating the recursion", list(fixed())),
        agree("E2.7", "beta_c: one double root there", list(critical())),
        agree("E2.7", "rest of k3 in the loss, p (1 - p) w = beta (p - p_ref)", list(rests())),
        agree("E2.7", "advantage and penalty cancel at rest, all sequences listed", list(cancelled())),
    ]


def tilted(x: Tiny) -> tuple[Table, Row]:
    """Ref 2^r of each sequence at its last token, and Z of each prompt."""
    mass, Z = zeros(x), [ZERO] * x.task.K
    for w in listed(x):
        y = w.q * Fraction(2) ** int(w.r)
        mass[w.rows[-1]][w.o[-1]] += y
        Z[w.k] += y
    return mass, Z


def sequences() -> Iterator[Comparison]:
    """Every sequence, and what the objective comes to."""
    for x in tinies():
        found, value = regularised.sequence_optimum(x.task.tree, x.logp(x.ref), BETA)
        mass, Z = tilted(x)
        prompt = [k for k, _ in prefixes(x.task)]
        yield Comparison(x.name, np.exp(found), [[y / Z[k] for y in row] for k, row in zip(prompt, mass, strict=True)])
        yield Comparison(f"{x.name}, value", value, [BETA * math.log(y) for y in Z])


def begun(x: Tiny) -> dict[tuple[int, tuple[int, ...]], tuple[Fraction, Fraction]]:
    """Of all sequences with some first tokens: the sums of ref and of ref 2^r."""
    found: dict[tuple[int, tuple[int, ...]], tuple[Fraction, Fraction]] = {}
    for w in listed(x):
        q = w.q
        for t in range(len(w.o) + 1):
            a, b = found.get((w.k, w.o[:t]), (ZERO, ZERO))
            found[w.k, w.o[:t]] = a + q, b + q * Fraction(2) ** int(w.r)
    return found


def by_tokens() -> Iterator[Comparison]:
    """The share of what begins with one more token."""
    for x in tinies():
        found, sums = regularised.optimum(x.task.tree, x.logp(x.ref), BETA), begun(x)
        rows = [[sums[k, (*o, a)][1] / sums[k, o][1] for a in range(x.task.V)] for k, o in prefixes(x.task)]
        yield Comparison(x.name, np.exp(found.logp), rows)
        q = (
            exact.sequence_probabilities(x.task, x.policy(rows))
            / x.task.weights[[k for k, _ in prefixes(x.task)]][:, None]
        )
        yield Comparison(f"{x.name}, from sequences", np.exp(regularised.as_tokens(x.task.tree, q)), rows)


def soft_values() -> Iterator[Comparison]:
    """Log of the mean of 2^r under the reference, from each prefix on."""
    for x in tinies():
        found, sums = regularised.optimum(x.task.tree, x.logp(x.ref), BETA), begun(x)
        V = [BETA * math.log(sums[k, o][1] / sums[k, o][0]) for k, o in prefixes(x.task)]
        J = math.fsum(float(q) * BETA * math.log(Z) for q, Z in zip(x.weights, tilted(x)[1], strict=True))
        yield Comparison(x.name, found.V, V)
        yield Comparison(f"{x.name}, J", found.J, J)


def still() -> Iterator[Comparison]:
    """No direction is better."""
    for x in tinies():
        best = exact.optimum(x.task, x.policy(x.ref), 0.5).logp
        found = regularised.regularised(x.task.tree, best, x.logp(x.ref), 0.5).slope
        yield Comparison(x.name, found, zeros(x))


# ---- success ----


def logit(p: float) -> float:
    """Log-odds."""
    return math.log(p / (1 - p))


def steps() -> Iterator[Comparison]:
    """Each step maximises the mean of the normalised advantage (r - p) / sqrt(p (1 - p)) less beta KL."""
    for beta, p_ref in ((2.0, 0.5), (1.5, 0.25), (4.0, 0.0625)):
        p = p_ref
        for found in islice(amplification.amplification(p_ref, beta), 4):
            s = beta * math.sqrt(p * (1 - p))
            right, wrong = p_ref * math.exp((1 - p) / s), (1 - p_ref) * math.exp(-p / s)
            p = right / (right + wrong)
            yield Comparison(f"beta {beta}, p_ref {p_ref}, step {found.k}", found.p, p)


def first_steps() -> Iterator[Comparison]:
    """The same for the sequences of a task: the soft recursion with advantages for outcomes."""
    for x in binary():
        tree, ref = x.task.tree, x.logp(x.ref)
        p = [success(x, k) for k in range(x.task.K)]
        prompt = [k for k, _ in prefixes(x.task)]
        A = np.array([(row - p[k]) / math.sqrt(p[k] * (1 - p[k])) for k, row in zip(prompt, tree.reward, strict=True)])
        best = regularised.optimum(tree, ref, 0.75, np.where(tree.ends, A, 0.0))
        found = [next(amplification.amplification(y, 0.75)).p for y in p]
        yield Comparison(x.name, found, recursion.evaluate(tree, best.logp).V[: x.task.K])


def success(x: Tiny, k: int) -> float:
    """The reference's chance to answer a prompt right."""
    return float(sum((w.q * w.r for w in listed(x) if w.k == k), ZERO))


def fixed() -> Iterator[Comparison]:
    """They stay; between the unstable one and the reference all goes to the stable one."""
    for beta, p_ref in ((2.0, 0.5), (4.0, 0.25), (8.0, 0.75)):
        low, high = amplification.resting_points(p_ref, beta)
        for point in (low, high):
            odds = math.exp(-point.logit)
            again = logit(p_ref) + (1 + odds) / (beta * math.sqrt(odds))
            yield Comparison(f"beta {beta}, p_ref {p_ref}", point.logit, again)
        z = logit(p_ref)
        for _ in range(400):
            p = 1 / (1 + math.exp(-z))
            z = logit(p_ref) + 1 / (beta * math.sqrt(p * (1 - p)))
        yield Comparison(f"beta {beta}, p_ref {p_ref}, the stable one", low.p, 1 / (1 + math.exp(-z)))
        yield Comparison(f"beta {beta}, p_ref {p_ref}, stability", [low.stable, high.stable], [1, 0])


def critical() -> Iterator[Comparison]:
    """Where a step has slope 1 it also stays; above there are two fixed points, below none."""
    for p_ref in (0.0625, 0.25, 0.5, 0.875):
        beta = amplification.beta_c(p_ref)
        z = 2 * math.asinh(beta)
        yield Comparison(f"p_ref {p_ref}", logit(p_ref) + 2 * math.cosh(z / 2) / beta, z)
        found = [len(amplification.resting_points(p_ref, beta * y)) for y in (1 - 1e-6, 1 + 1e-6)]
        yield Comparison(f"p_ref {p_ref}, number of fixed points", found, [0, 2])


# ---- other penalties ----


def rests() -> Iterator[Comparison]:
    """Sequences, right or wrong; w = 1 has a root in closed form, that of GRPO's std is put back."""
    for x in binary():
        p_ref = [success(x, k) for k in range(x.task.K)]
        for beta in (0.25, 0.5, 2.0):
            found = stationary.stationary(x.task.tree, x.logp(x.ref), beta, level="sequence")
            p = recursion.evaluate(x.task.tree, found).V[: x.task.K]
            root = [(1 - beta + math.sqrt((1 - beta) ** 2 + 4 * beta * y)) / 2 for y in p_ref]
            yield Comparison(f"{x.name}, beta {beta}", p, root)
        found = stationary.stationary(x.task.tree, x.logp(x.ref), 0.5, level="sequence", weight=grpo_weight)
        p = recursion.evaluate(x.task.tree, found).V[: x.task.K]
        yield Comparison(f"{x.name}, std", p * (1 - p) * grpo_weight(p), 0.5 * (p - np.array(p_ref)))


def grpo_weight(p: F) -> F:
    """Groups of 8, sample std."""
    return np.array([weight(Fraction(y), 8, "sample", 1e-4, False) for y in p])


def cancelled() -> Iterator[Comparison]:
    """The gradient of J and the slope of the penalty, both from lists of sequences, for the policy that rests."""
    for x in tinies()[1:]:
        for kind in ("k2", "k3"):
            for level in ("token", "sequence"):
                logp = stationary.stationary(x.task.tree, x.logp(x.ref), 0.5, kind=kind, level=level)
                pi = [[Fraction(y) for y in row] for row in np.exp(logp).tolist()]
                at = Tiny(x.name, x.task, pi, x.ref, x.pays)
                pushed = np.array(gradient(at), np.float64)
                yield Comparison(f"{x.name}, {kind}, {level}", 0.5 * slope(at, kind, "loss", level), pushed)
