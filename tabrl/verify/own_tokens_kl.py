"""The KL to a reference and its estimates, against a list of all sequences: row E2.6 of the ledger.

p, q probabilities of a sequence, or of a token, under the policy and the reference; k1 = log p - log q, k2 = k1^2 / 2,
k3 = q / p - 1 + k1; k' their derivatives in log p; N prefixes, V next tokens.
"""

import math
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from tabrl import divergences
from tabrl.tokens import exact, methods, penalties, regularised
from tabrl.tokens.methods import Method, Penalty
from tabrl.types import F
from tabrl.verify.complex_step import derivative
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import Tiny, listed, rollouts, tinies

KINDS, LEVELS = ("k1", "k2", "k3"), ("token", "sequence")


def kl() -> list[Check]:
    """E2.6: the KL, values, means and variances of its estimates, what each pushes towards, in training too."""
    return [
        agree("E2.6", "estimates k1, k2, k3 and their derivatives, one token", list(values())),
        agree("E2.6", "KL of sequences and of tokens, all sequences listed", list(divergence())),
        agree("E2.6", "means and variances of the estimates, all sequences listed", list(moments())),
        agree("E2.6", "means of k1 and k3, the KL itself", list(unbiased())),
        agree("E2.6", "expected slopes in the loss, weighed, in the reward, all sequences listed", list(pushes())),
        *named(),
        agree("E2.6", "expected slope of the KL that training adds, all sequences listed", list(trained())),
        agree("E2.6", "gradient of E[r] - beta KL, against the complex step", list(objective())),
    ]


def estimates(p: float, q: float) -> dict[str, tuple[float, float]]:
    """Each with its derivative."""
    x = math.log(p) - math.log(q)
    return {"k1": (x, 1.0), "k2": (x * x / 2, x), "k3": (q / p - 1 + x, 1 - q / p)}


def values() -> Iterator[Comparison]:
    """Both sides of 1."""
    p, q = np.array([0.5, 0.25, 0.125, 0.75]), np.array([0.25, 0.25, 0.5, 0.0625])
    for kind in KINDS:
        exact_ = [estimates(a, b)[kind] for a, b in zip(p, q, strict=True)]
        named: Any = {"kind": kind}
        found = divergences.kl_estimate(np.log(p), np.log(q), **named)
        slope = divergences.d_kl_estimate(np.log(p), np.log(q), **named)
        yield Comparison(kind, np.column_stack([found, slope]), exact_)


def tokens(x: Tiny) -> list[list[tuple[float, float]]]:
    """Of each sequence: p and q of its tokens."""
    return [[(float(x.pi[h][a]), float(x.ref[h][a])) for h, a in zip(w.rows, w.o, strict=True)] for w in listed(x)]


def whole(x: Tiny) -> list[tuple[float, float]]:
    """Of each sequence: p and q."""
    return [(float(w.p), float(w.q)) for w in listed(x)]


def share(x: Tiny) -> F:
    """Probability of each sequence, prompt included."""
    return np.array([float(x.weights[w.k] * w.p) for w in listed(x)])


def true_kl(x: Tiny) -> float:
    """Of whole sequences."""
    return math.fsum(share(x) * np.array([math.log(p / q) for p, q in whole(x)]))


def divergence() -> Iterator[Comparison]:
    """A sum over prefixes is a sum over sequences."""
    for x in tinies():
        found = exact.kl(x.task, x.policy(), x.policy(x.ref))
        length = math.fsum(s * len(w.o) for s, w in zip(share(x), listed(x), strict=True))
        yield Comparison(x.name, [found.sequence, found.token], [true_kl(x), true_kl(x) / length])
        rows = [
            sum(float(p) * math.log(p / q) for p, q in zip(*row, strict=True)) for row in zip(x.pi, x.ref, strict=True)
        ]
        yield Comparison(f"{x.name}, of the next token", found.rows, rows)


def sums(x: Tiny, kind: str, level: str) -> F:
    """The estimate that each sequence gives."""
    if level == "sequence":
        return np.array([estimates(p, q)[kind][0] for p, q in whole(x)])
    return np.array([math.fsum(estimates(p, q)[kind][0] for p, q in row) for row in tokens(x)])


def moments() -> Iterator[Comparison]:
    """Over sequences, the prompt being drawn as well."""
    for x, kind, level in product(tinies(), KINDS, LEVELS):
        k = sums(x, kind, level)
        mean = math.fsum(share(x) * k)
        found = penalties.kl_moments(x.task.tree, x.logp(), x.logp(x.ref), kind=kind, level=level)
        yield Comparison(f"{x.name}, {kind} of a {level}", list(found), [mean, math.fsum(share(x) * (k - mean) ** 2)])


def unbiased() -> Iterator[Comparison]:
    """Both levels."""
    for x, kind, level in product(tinies(), ("k1", "k3"), LEVELS):
        found = penalties.kl_moments(x.task.tree, x.logp(), x.logp(x.ref), kind=kind, level=level)[0]
        yield Comparison(f"{x.name}, {kind} of a {level}", found, true_kl(x))


# ---- slopes ----


def pushed(x: Tiny, kind: str, place: str, level: str) -> F:
    """Sum over sequences of p times k', k or both, times scores: of the sequence, or each token's own."""

    def amount(p: float, q: float) -> float:
        k, slope = estimates(p, q)[kind]
        return {"loss": slope, "weighted": k + slope, "reward": k}[place]

    total = np.zeros((len(x.pi), x.task.V))
    for w, s, pq, row in zip(listed(x), share(x), whole(x), tokens(x), strict=True):
        if level == "sequence":
            factors = [amount(*pq)] * len(row)
        else:
            each = [amount(*y) for y in row]
            factors = [math.fsum(each)] * len(row) if place == "reward" else each
        for h, a, f in zip(w.rows, w.o, factors, strict=True):
            total[h] += s * f * ((np.arange(x.task.V) == a) - np.array(x.pi[h], np.float64))
    return total


def slope(x: Tiny, kind: str, place: str, level: str) -> F:
    """What the package says."""
    found = penalties.kl_slope(x.task.tree, x.logp(), x.logp(x.ref), kind=kind, place=place, level=level)
    return np.asarray(found, np.float64)


def pushes() -> Iterator[Comparison]:
    """Every combination."""
    for x, kind, place, level in product(tinies(), KINDS, penalties.PLACES, LEVELS):
        where = f"{x.name}, {kind}, {place}, {level}"
        yield Comparison(where, slope(x, kind, place, level), pushed(x, kind, place, level))


def sequence_log(x: Tiny, z: Any) -> list[Any]:
    """Log-probability of every sequence, from logits, real or complex."""
    rows = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return [sum(rows[h, a] for h, a in zip(w.rows, w.o, strict=True)) for w in listed(x)]


def divergence_of(x: Tiny, z: Any, *, reverse: bool = False) -> Any:
    """KL(pi || ref) of sequences as a function of the logits; reverse: KL(ref || pi)."""
    total: Any = 0.0
    for w, log_p in zip(listed(x), sequence_log(x, z), strict=True):
        q = float(w.q)
        p = q if reverse else np.exp(log_p)
        total = total + float(x.weights[w.k]) * p * (log_p - math.log(q)) * (-1 if reverse else 1)
    return total


@cache
def stepped(x: Tiny, reverse: bool) -> F:
    """The gradient of a divergence."""
    return derivative(lambda z: divergence_of(x, z, reverse=reverse), x.logp())


def named() -> list[Check]:
    """What each slope is, as the complex step of a divergence."""
    some = tinies()[1:]
    zero = [(x, np.zeros((len(x.pi), x.task.V))) for x in some]
    forward, back = ([(x, stepped(x, reverse)) for x in some] for reverse in (False, True))
    claims = (
        ("0: k1 in the loss", zero, [("k1", "loss", level) for level in LEVELS]),
        (
            "grad KL(pi || ref): k2, weighted k1 and k3, k1 in the reward",
            forward,
            [("k2", "loss", "sequence"), ("k1", "weighted", "sequence"), ("k3", "weighted", "sequence"),
             ("k1", "reward", "sequence"), ("k1", "reward", "token")],
        ),
        ("grad KL(ref || pi): k3 of sequences in the loss", back, [("k3", "loss", "sequence")]),
    )  # fmt: skip
    return [
        agree("E2.6", f"slope is {claim}, by complex step", [
            Comparison(f"{x.name}, {' '.join(how)}", slope(x, *how), g) for x, g in exact_ for how in hows
        ])
        for claim, exact_, hows in claims
    ]  # fmt: skip


def trained() -> Iterator[Comparison]:
    """The part of a method's slope that its penalty makes, weighed with p."""
    for x, kind, place in product(tinies()[1::2], KINDS, ("loss", "weighted")):
        total, method = np.zeros((len(x.pi), x.task.V)), Method(how="constant", kl=Penalty(1.0, kind, place))
        for w, s in zip(listed(x), share(x), strict=True):
            batch = rollouts(x, [w])
            ref = methods.taken(x.logp(x.ref)[batch.row], batch)
            found, _ = methods.slope(method, batch, x.logp()[batch.row], 0 * batch.logp, ref)
            np.add.at(total, batch.row[0], s * x.task.length * found[0])
        yield Comparison(f"{x.name}, {kind}, {place}", total, pushed(x, kind, place, "token"))


def objective() -> Iterator[Comparison]:
    """Regularised J and its gradient."""
    for x in tinies()[1:]:
        found = regularised.regularised(x.task.tree, x.logp(), x.logp(x.ref), 0.25)

        def J(z: Any, x: Tiny = x) -> Any:
            earned = sum(
                float(x.weights[w.k] * w.r) * np.exp(log_p)
                for w, log_p in zip(listed(x), sequence_log(x, z), strict=True)
            )
            return earned - 0.25 * divergence_of(x, z)

        yield Comparison(f"{x.name}, J", found.J, float(np.real(J(x.logp()))))
        yield Comparison(x.name, found.slope, derivative(J, x.logp()))
