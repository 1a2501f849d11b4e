"""The TD error as an advantage against fractions: row E1.12 of the ledger.

V (S,) values of a critic; e = V - V_pi its error; delta = r + gamma V(s') - V(s); A(s,a) the advantage; psi score;
d (S,) expected discounted visits.
"""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from tabrl import advantage_moments, losses, rational
from tabrl.rational import Row
from tabrl.verify import advantage_laws, complex_step, literal
from tabrl.verify.advantage_laws import n_step_bias, td_bias, values
from tabrl.verify.literal import ZERO
from tabrl.verify.own_advantages import updates
from tabrl.verify.record import Check, Comparison, agree, largest, within
from tabrl.verify.softmax_models import expected, softmaxes, tiny


def actor_critic() -> list[Check]:
    """E1.12: moments of the TD error and of n-step advantages, their bias, the bias of the gradient, entropy."""
    return [
        *td_error(),
        *unbiased(),
        agree("E1.12", "bias of n-step advantages, against gamma^n P^n e - e in fractions", list(n_step())),
        agree("E1.12", "mean and variance of n-step advantages, all paths listed, in fractions", list(paths())),
        *update(),
        *entropies(),
    ]


def td_error() -> list[Check]:
    """Mean, bias and variance of delta given s and a."""
    mean, bias, variance = list[Comparison](), list[Comparison](), list[Comparison]()
    for x in softmaxes():
        V = values(x, x.V)
        found, exact = advantage_moments.advantage(x.mdp, x.pi, x.V, 0.0), advantage_laws.gae(x, V, ZERO)
        Q = rational.action_values(x.t, V)
        backed = advantage_laws.off(x, Q, V)
        mean.append(Comparison(x.name, found.mean, backed))
        bias.append(Comparison(x.name, found.bias, td_bias(x, V)))
        variance.append(Comparison(x.name, found.variance, exact.variance))
    return [
        agree("E1.12", "E[delta|s,a], against r + gamma P V - V(s) in fractions", mean),
        agree("E1.12", "E[delta|s,a] - A, against gamma P e - e(s) in fractions", bias),
        agree("E1.12", "Var[delta|s,a], against all outcomes in fractions", variance),
    ]


def unbiased() -> list[Check]:
    """Delta is unbiased at V_pi, and nowhere else as its bias bounds the distance from V_pi."""
    there, bounds = [], []
    for x in softmaxes():
        V_pi = np.array(x.V_pi, np.float64)
        bias = advantage_moments.advantage(x.mdp, x.pi, V_pi, 0.0).bias
        there.append(Comparison(x.name, bias / max(1.0, abs(V_pi).max()), [[ZERO] * x.mdp.A] * x.mdp.S))
        if x.mdp.gamma < 1:
            size = float(abs(advantage_moments.advantage(x.mdp, x.pi, x.V, 0.0).bias).max())
            e = largest(advantage_laws.error(x, values(x, x.V)))
            bounds.append((x.name, e, size * (1 + 1e-9) / (1 - x.mdp.gamma)))
    return [
        agree("E1.12", "(E[delta|s,a] - A) / max|V_pi| at V = V_pi, against 0", there),
        within("E1.12", "distance of any V from V_pi, within max|E[delta|s,a] - A| / (1 - gamma)", bounds),
    ]


def n_step() -> Iterator[Comparison]:
    """The bias of longer estimates."""
    for x in softmaxes():
        for n in (1, 2, 5):
            found = advantage_moments.n_step_advantage(x.mdp, x.pi, x.V, n)
            yield Comparison(f"{x.name}, n = {n}", found.bias, n_step_bias(x, values(x, x.V), n))


def paths() -> Iterator[Comparison]:
    """The estimate of every path of n steps, or to the end."""
    for x in tiny():
        V = values(x, x.V)
        for n in (1, 2, 3):
            found = advantage_moments.n_step_advantage(x.mdp, x.pi, x.V, n)

            def ahead(y: literal.Trace, n: int = n, V: Row = V) -> Fraction:
                return literal.n_step_return(y, literal.along(V, y), 0, n) - V[y.s[0]]

            for s, a, exact in advantage_laws.listed(x, n, ahead):
                yield Comparison(f"{x.name}, n = {n}, s={s}, a={a}", [found.mean[s, a], found.variance[s, a]], exact)


def update() -> list[Check]:
    """The mean update of the actor while theta and V stand still, and by how much it misses grad J."""
    mean, bias, harmless = list[Comparison](), list[Comparison](), list[Comparison]()
    for x in softmaxes():
        V = values(x, x.V)
        delta = advantage_laws.off(x, rational.action_values(x.t, V), V)
        found = advantage_moments.advantage_gradient(x.mdp, x.pi, x.V, 0.0).mean
        mean.append(Comparison(x.name, found, expected(x.d, x.weight, delta)))
        exact = expected(x.d, x.weight, advantage_laws.ahead(x, advantage_laws.error(x, V)))
        missed = advantage_moments.advantage(x.mdp, x.pi, x.V, 0.0).bias
        bias.append(Comparison(x.name, advantage_moments.expected_gradient(x.mdp, x.pi, missed), exact))
        if not x.ends:
            shifted = np.array(x.V_pi, np.float64) + 3.0
            found = advantage_moments.advantage_gradient(x.mdp, x.pi, shifted, 0.0).mean
            harmless.append(Comparison(f"{x.name}, V = V_pi + 3", found, x.gradient))
    return [
        agree("E1.12", "mean update of one-step actor-critic, against sum of d pi psi delta in fractions", mean),
        agree("E1.12", "bias of that update, against sum of d pi psi gamma P e in fractions", bias),
        agree("E1.12", "mean update where P e is the same for all actions, against grad J in fractions", harmless),
        agree("E1.12", "mean and variance of an episode's update, all episodes listed, in fractions", updates(0.0)),
    ]


def entropies() -> list[Check]:
    """The bonus of A2C: the entropy of a row of log-probabilities, and its derivative in the logits."""
    p = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])
    # -sum p log2 p of the first row is 3/2, of the second 3/2 - (3/4) (log2 3 - 1)
    exact = [1.5 * np.log(2), (1.5 + 0.75) * np.log(2) - 0.75 * np.log(3)]

    def entropy(z: np.ndarray) -> np.ndarray:
        q = complex_step.softmax(z, True)
        return -(q * np.log(q)).sum()  # type: ignore[no-any-return]

    slope = complex_step.derivative(entropy, np.log(p))
    return [
        agree("E1.12", "entropy of rows, in powers of 2 and 3", [Comparison("", losses.entropy(np.log(p)), exact)]),
        agree("E1.12", "its derivative in the logits, against the complex step", [
            Comparison("", losses.d_entropy(np.log(p)), slope)
        ]),
    ]  # fmt: skip
