"""Steps uphill, against literal loops and PyTorch."""

from typing import Any

import numpy as np
import pytest

from tabrl import schedules
from tabrl.errors import ShapeError
from tabrl.optimise import adam, ascent, sgd

SHAPE = (3, 2)


def gradients(seed: int, n: int = 60) -> list[Any]:
    """Gradients of very different sizes, some exactly 0."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=SHAPE) * 10.0 ** rng.integers(-6, 3) * (rng.random(SHAPE) < 0.8) for _ in range(n)]


@pytest.mark.parametrize("seed", range(20))
def test_adam_is_the_literal_algorithm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lr, b1, b2, eps = rng.uniform(0.01, 0.3), rng.uniform(0, 0.95), rng.uniform(0.5, 0.9999), 1e-8
    step, theta = adam(lr, b1, b2, eps), rng.normal(size=SHAPE)
    expected, m, v = theta.copy(), np.zeros(SHAPE), np.zeros(SHAPE)
    for k, g in enumerate(gradients(seed), 1):
        theta = step(theta, g)
        for i in np.ndindex(SHAPE):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i]
            expected[i] += lr * (m[i] / (1 - b1**k)) / ((v[i] / (1 - b2**k)) ** 0.5 + eps)
        np.testing.assert_allclose(theta, expected, rtol=1e-12, atol=1e-12)


def test_adam_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    theta = np.random.default_rng(0).normal(size=SHAPE)
    weight = torch.tensor(theta, requires_grad=True)
    theirs, ours = torch.optim.Adam([weight], lr=0.03, betas=(0.8, 0.99), eps=1e-6), adam(0.03, 0.8, 0.99, 1e-6)
    for g in gradients(1):
        weight.grad = torch.tensor(-g)  # they descend
        theirs.step()
        theta = ours(theta, g)
        np.testing.assert_allclose(theta, weight.detach().numpy(), rtol=1e-12, atol=1e-12)


def test_sgd() -> None:
    theta, g = np.ones(SHAPE), gradients(2)[0]
    np.testing.assert_array_equal(sgd(0.5)(theta, g), theta + 0.5 * g)
    assert (theta == 1).all()
    step = sgd(schedules.harmonic)
    assert step(np.zeros(1), np.ones(1)).item() == 1.0
    assert step(np.zeros(1), np.ones(1)).item() == 0.5
    slower = adam(schedules.power(0.5, 1.0))
    assert [round(slower(np.zeros(1), np.ones(1)).item(), 6) for _ in range(2)] == [0.5, 0.25]


def test_adam_forgets_the_size_of_the_gradient_and_leaves_what_has_none() -> None:
    big, small = adam(0.1, eps=1e-300), adam(0.1, eps=1e-300)
    theta = other = np.zeros(SHAPE)
    for g in gradients(3):
        theta, other = big(theta, 1024 * g), small(other, g)
    np.testing.assert_allclose(theta, other, rtol=1e-12)
    assert adam(0.1)(np.zeros(2), np.zeros(2)).tolist() == [0.0, 0.0]


def test_runs_do_not_share_what_an_optimiser_remembers() -> None:
    given = adam(0.1)
    one, two = ascent(given), ascent(given)
    g = gradients(4)
    first = [one(np.zeros(SHAPE), x) for x in g]
    second = [two(np.zeros(SHAPE), x) for x in g]
    np.testing.assert_array_equal(first, second)
    assert given.k == 0
    np.testing.assert_array_equal(ascent(0.1)(np.zeros(2), np.ones(2)), [0.1, 0.1])


def test_bad_input_is_named() -> None:
    for wrong in (0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"lr is .*; a positive number is expected"):
            sgd(wrong)
    with pytest.raises(ValueError, match="eps is 0; a positive number"):
        adam(0.1, eps=0)
    with pytest.raises(ValueError, match=r"b2 is 1; a number in \[0, 1\) is expected"):
        adam(0.1, b2=1)
    with pytest.raises(ShapeError, match=r"gradient has shape \(3,\); the shape of theta, \(2,\)"):
        adam(0.1)(np.zeros(2), np.zeros(3))
