"""Correction 4: gamma^t; judged by complex step, differences, closed forms of the fork, literal sums and samples."""

from functools import partial

import complex_step
import numpy as np
import pytest
from complex_step import derivative, trial
from paths import agree

from tabrl import dp, gradient
from tabrl.lessons import correction_4 as lesson

C = lesson.LATE


def fork_J(L: int, x: complex) -> complex:
    p = 1 / (1 + np.exp(-x))
    return complex((1 - p) + C * 0.9 ** (L - 1) * p)


@pytest.mark.parametrize("L", [2, 5, 12])
@pytest.mark.parametrize("x", [-2.0, 0.0, 1.5])
def test_the_fork_in_closed_form(L: int, x: float) -> None:
    """J, its derivative by complex step, and the usual direction p (1-p) (c - 1)."""
    mdp = lesson.fork(L)
    theta, p = lesson.shared(mdp, x), 1 / (1 + np.exp(-x))
    assert gradient.objective(mdp, theta) == pytest.approx(fork_J(L, x), rel=1e-13)
    right = np.imag(fork_J(L, x + 1e-200j)) / 1e-200
    assert gradient.policy_gradient(mdp, theta)[:, 1].sum() == pytest.approx(right, rel=1e-12, abs=1e-15)
    assert right == pytest.approx(p * (1 - p) * (C * 0.9 ** (L - 1) - 1), rel=1e-12)
    assert gradient.usual_gradient(mdp, theta)[:, 1].sum() == pytest.approx(p * (1 - p) * (C - 1), rel=1e-12)


@pytest.mark.parametrize("L", [8, 12, 16])
def test_on_a_long_fork_the_usual_ascent_lowers_j_at_every_step(L: int) -> None:
    right, usual = (lesson.fork_ascent(name, L, 600) for name in ("right", "usual"))
    assert (np.diff(right) > 0).all() and (np.diff(usual) < 0).all()
    assert right[-1] == pytest.approx(1, abs=0.03)
    assert usual[-1] == pytest.approx(C * 0.9 ** (L - 1), abs=2e-3)


def test_on_a_short_fork_both_are_right() -> None:
    for L in (2, 4):
        ends = [lesson.fork_ascent(name, L, 600)[-1] for name in ("right", "usual")]
        assert ends == pytest.approx([C * 0.9 ** (L - 1)] * 2, abs=5e-3)


@pytest.mark.parametrize("name", ["right", "usual"])
def test_exact_ascent_by_a_literal_loop(name: str) -> None:
    x, J = 0.0, lesson.fork_ascent(name, 12, 40)
    for k in range(41):
        assert J[k] == pytest.approx(fork_J(12, x), rel=1e-12)
        p = 1 / (1 + np.exp(-x))
        x += lesson.ETA * p * (1 - p) * ((C * 0.9**11 if name == "right" else C) - 1)


@pytest.mark.parametrize("gamma", [0.8, 0.9, 0.95])
def test_angles(gamma: float) -> None:
    """Computed again from literal visits; 1 in a corridor of one room, where there is one state."""
    assert lesson.angle(1, gamma) == pytest.approx(1, abs=1e-14)
    for L in (4, 9):
        mdp = lesson.corridor(L, gamma)
        right = derivative(partial(complex_step.J, mdp), np.zeros((mdp.S, 2)))
        pi, visits, now = np.full((mdp.S, 2), 0.5), np.zeros(mdp.S), mdp.mu.copy()
        P_pi = np.einsum("sa,sax->sx", pi, np.asarray(mdp.P)) * ~mdp.terminal[:, None]
        d = visits.copy()
        for t in range(60_000 if L == 9 else 5000):
            visits, d, now = visits + now, d + gamma**t * now, now @ P_pi
            if now.sum() < 1e-17:
                break
        weight = np.divide(visits, d, where=d > 0, out=np.zeros(mdp.S))
        usual = weight[:, None] * right
        assert lesson.angle(L, gamma) == pytest.approx(lesson.cosine(right, usual), abs=1e-9)
    assert min(lesson.angle(L, gamma) for L in range(2, 17)) < 0.6


def test_with_a_row_for_each_room_j_rises_with_both() -> None:
    """Small steps rise at once; in 12 rooms the usual ascent is at J* when the right one is still on the plateau."""
    for name in ("right", "usual"):
        assert (np.diff(lesson.table_ascent(name, 8, 100, 0.05)) > 0).all()
        assert lesson.table_ascent(name, 8, 300)[-1] == pytest.approx(
            float(dp.solve(lesson.corridor(8)).V[0]), rel=1e-3
        )
    right, usual = (lesson.table_ascent(name) for name in ("right", "usual"))
    assert usual[-1] == pytest.approx(float(dp.solve(lesson.corridor(12)).V[0]), rel=5e-3)
    assert right[-1] == pytest.approx(0.02 / (1 - 0.9), rel=1e-3)  # back for ever in room 0
    assert right[15] > usual[15]


@pytest.mark.parametrize("seed", range(20))
def test_in_a_table_every_row_keeps_its_direction(seed: int) -> None:
    """n(s) >= d(s): the rows are positive multiples, so that the usual direction is one of ascent."""
    mdp, theta = trial(seed, proper=True)
    right, usual = gradient.policy_gradient(mdp, theta), gradient.usual_gradient(mdp, theta)
    assert (right * usual).sum() >= (right**2).sum() * (1 - 1e-9)
    for a, b in zip(right, usual, strict=True):
        assert abs(np.outer(a, b) - np.outer(b, a)).max() <= 1e-12 * (1e-300 + abs(a).max() * abs(b).max())


@pytest.mark.parametrize("seed", range(20))
def test_the_jacobian_by_differences_and_the_hessian(seed: int) -> None:
    """Cyclic models with masked actions: w = gamma is the Hessian, symmetric; w = 1 by central differences."""
    mdp, theta = trial(seed, proper=True, S=4)
    theta = np.clip(theta, -2, 2)
    H, M = (lesson.jacobian(mdp, theta, w) for w in (mdp.gamma, 1.0))
    size = abs(M).max() + abs(H).max() + 1e-300
    assert abs(H - H.T).max() <= 1e-9 * size
    rng = np.random.default_rng(seed)
    v = rng.normal(size=theta.shape)
    assert H @ v.ravel() == pytest.approx(gradient.hessian_vector(mdp, theta, v).ravel(), abs=1e-9 * size)
    h = 1e-5
    ahead, behind = (gradient.usual_gradient(mdp, theta + x * v) for x in (h, -h))
    assert M @ v.ravel() == pytest.approx((ahead - behind).ravel() / (2 * h), abs=1e-5 * size)


def test_the_usual_direction_is_no_gradient() -> None:
    mdp = lesson.corridor()
    for seed in range(5):
        theta = np.random.default_rng([41, seed]).normal(size=(mdp.S, 2))
        assert lesson.asymmetry(lesson.jacobian(mdp, theta, 0.9)) < 1e-12
        assert lesson.asymmetry(lesson.jacobian(mdp, theta, 1.0)) > 0.01
    undiscounted = lesson.corridor(8, 1.0)
    assert lesson.asymmetry(lesson.jacobian(undiscounted, np.zeros((9, 2)), 1.0)) < 1e-12


def test_estimates_by_a_literal_loop() -> None:
    x, L = np.array([0.3, -1.0]), 5
    for w in (0.9, 1.0):
        got = lesson.estimates(L, x, w, 4, np.random.default_rng(42))
        late = np.random.default_rng(42).random((2, 4, L)) < (1 / (1 + np.exp(-x)))[:, None, None]
        for run in range(2):
            p, total = 1 / (1 + np.exp(-x[run])), 0.0
            for episode in late[run]:
                r = np.zeros(L)
                r[0], r[-1] = 1.0 - episode[0], C * episode[-1]
                mean = np.zeros(L)
                mean[0], mean[-1] = 1 - p, C * p
                for t in range(L):
                    G, V = (sum(0.9 ** (k - t) * y[k] for k in range(t, L)) for y in (r, mean))
                    total += w**t * (episode[t] - p) * (G - V) / 4
            assert got[run] == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("L", [3, 12])
def test_estimates_have_the_exact_means(L: int) -> None:
    """20,000 batches of one episode, with and without gamma^t; |z| <= 6.8 (see `paths`)."""
    mdp, x = lesson.fork(L), 0.4
    for w, direction in ((0.9, gradient.policy_gradient), (1.0, gradient.usual_gradient)):
        exact = direction(mdp, lesson.shared(mdp, x))[:, 1].sum()
        agree(lesson.estimates(L, np.full(20_000, x), w, 1, np.random.default_rng([43, L])), exact)


def test_visits_have_the_exact_means() -> None:
    """600 runs of one episode, |z| <= 6.8 (see `paths`)."""
    mdp = lesson.corridor()
    found = lesson.counted(600, 1, np.random.default_rng(44))
    agree(found["right"].T, gradient.at(mdp, np.zeros((mdp.S, 2))).d[:-1])
    agree(found["usual"].T, gradient.visit_counts(mdp, np.full((mdp.S, 2), 0.5))[:-1])


def test_the_lesson_prints_and_draws(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tabrl.plots import new_figure
    from tabrl.plots.grid import INK

    few = lesson.experiment(runs=3, updates=20)
    monkeypatch.setattr(lesson, "experiment", lambda: few)
    lesson.main()
    text = capsys.readouterr().out
    assert text.count("fork of ") == 2 * len(lesson.LENGTHS)
    assert text.count("asymmetry of the Jacobian") == 2
    fig = new_figure(14, 8)
    lesson.figure(fig)
    fig.draw_without_rendering()
    assert len(fig.axes) == 6
    levels = [np.asarray(x.get_ydata()) for x in fig.axes[3].get_lines() if x.get_color() == INK]
    assert [float(y[0]) for y in levels] == pytest.approx([1.0, C * 0.9**11])
