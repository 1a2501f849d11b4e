"""Dynamic sampling against every group of tiny tasks: row E2.8 of the ledger.

G answers in a group; p chance that one is right; a(p) the share of groups that are kept; n groups in a batch.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from tabrl.rational import Row
from tabrl.tokens import draws, groups, rates
from tabrl.tokens.counts import Estimator
from tabrl.verify.literal import ZERO
from tabrl.verify.own_tokens import chances
from tabrl.verify.own_tokens_groups import literal, name, some
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_groups import of_any
from tabrl.verify.token_models import Tiny, binary, listed, rollouts, tinies


def dynamic() -> list[Check]:
    """E2.8: which groups are kept, how often, at what cost, and what that does to the mean update."""
    return [
        agree("E2.8", "kept share 1 - p^G - (1 - p)^G, in fractions", list(closed_shares())),
        agree("E2.8", "kept share of each prompt, all groups listed, in fractions", list(shares())),
        agree("E2.8", "groups drawn for each one kept, in fractions", oversampled()),
        agree("E2.8", "which groups are kept, one by one", list(kept_ones())),
        agree("E2.8", "mean update of the kept groups, all of them listed", list(kept_means())),
        agree("E2.8", "it is the mean update of all groups over the kept share", list(rescaled())),
        agree("E2.8", "refilled batches, against drawing again and again", list(refilled())),
    ]


def closed_shares() -> Iterator[Comparison]:
    """Flat groups are all right or all wrong."""
    p = np.array([0.0, 0.0625, 0.5, 0.75, 1.0])
    for G in (2, 3, 8, 16):
        yield Comparison(f"G {G}", rates.kept_share(p, G), [1 - Fraction(y) ** G - (1 - Fraction(y)) ** G for y in p])


def share(x: Tiny, G: int) -> Row:
    """Of each prompt: the chance of groups whose rewards differ."""
    found = []
    for k in range(x.task.K):
        flat: dict[Fraction, Fraction] = {}
        for w in listed(x):
            if w.k == k:
                flat[w.r] = flat.get(w.r, ZERO) + w.p
        found.append(1 - sum((p**G for p in flat.values()), ZERO))
    return found


def shares() -> Iterator[Comparison]:
    """Two rewards and more."""
    for x in tinies():
        for G in (2, 3, 8):
            yield Comparison(f"{x.name}, G {G}", groups.kept(x.task.tree, x.logp(), G), share(x, G))


def oversampled() -> list[Comparison]:
    """One over the mean share."""
    found = []
    for x in binary():
        for G in (2, 8):
            mean = sum((q * a for q, a in zip(x.weights, share(x, G), strict=True)), ZERO)
            p = [float(y) for y in chances(x)]
            found.append(Comparison(f"{x.name}, G {G}", rates.oversampling(p, x.task.weights, G), 1 / mean))
    return found


def kept_ones() -> Iterator[Comparison]:
    """All groups in one batch, in the order they come; the sequences of those that are left."""
    for x in some():
        law = of_any(x, 2)
        left = [group for group in law.group if len({w.r for w in group}) > 1]
        every = rollouts(x, [w for group in law.group for w in group])
        for most in (len(left), 5):
            found = draws.mixed(every, 2, most, 7)
            exact = rollouts(x, [w for group in left[:most] for w in group])
            labels = np.repeat(np.arange(7, 7 + min(most, len(left))), 2)
            yield Comparison(f"{x.name}, tokens", found.tokens, exact.tokens.astype(float))
            yield Comparison(f"{x.name}, labels", found.group, labels.astype(float))


def kept_means() -> Iterator[Comparison]:
    """One group, and two whose tokens share a denominator."""
    for x in some():
        for how, n, G in (
            ("sequence", 1, 3),
            ("group_token", 1, 3),
            ("constant", 1, 3),
            ("token", 1, 2),
            ("token", 2, 2),
        ):
            rule = Estimator(G, how)
            found = groups.expected_gradient(x.task.tree, x.logp(), rule, n, dynamic=True)
            yield Comparison(f"{name(x, rule)}, n {n}", found, literal(x, rule, n, True))


def rescaled() -> Iterator[Comparison]:
    """The direction stays."""
    for x in some():
        for how in ("sequence", "group_token", "constant"):
            rule = Estimator(4, how)
            mean = sum((q * a for q, a in zip(x.weights, share(x, 4), strict=True)), ZERO)
            plain = groups.expected_gradient(x.task.tree, x.logp(), rule, 1) / float(mean)
            yield Comparison(
                name(x, rule), groups.expected_gradient(x.task.tree, x.logp(), rule, 1, dynamic=True), plain
            )


def refilled() -> Iterator[Comparison]:
    """The same draws, group by group, judged by rewards as the verifier gives them."""
    for x in some():
        for n, limit in ((3, 8), (6, 2)):
            drawn = draws.Dynamic(2, n, limit)(x.policy(), np.random.default_rng(47))
            rng, tokens, seen, left = np.random.default_rng(47), 0.0, 0, list[float]()
            for _ in range(limit):
                if len(left) < 2 * n:
                    more = draws.Groups(2, n)(x.policy(), rng)
                    tokens, seen = tokens + more.tokens, seen + n
                    for i in range(0, 2 * n, 2):
                        if more.x.reward[i] != more.x.reward[i + 1] and len(left) < 2 * n:
                            left += more.x.reward[i : i + 2].tolist()
            yield Comparison(f"{x.name}, rewards", drawn.x.reward, left)
            yield Comparison(f"{x.name}, counts", [drawn.tokens, drawn.kept], [tokens, len(left) / 2 / seen])
