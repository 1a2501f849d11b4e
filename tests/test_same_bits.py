"""The same seed gives the same bits: plain or compiled, with an empty cache of compiled code or a full one."""

from pathlib import Path

import pytest
from bits import output

SCRIPT = """
import numpy as np
from tabrl import envs, prediction, sample
from tabrl import control
from tabrl.replay import side_by_side
from tabrl.trace import last

world = envs.frozen_lake(gamma=0.9)
pi = np.full((world.S, world.A), 0.25)
spread = envs.random_walk(5)
spread = type(spread)(spread.P, spread.R, 1.0, terminal=spread.terminal)  # starts everywhere
first = np.linspace(-1, 1, world.S)
learners = [
    (prediction.td0, {"alpha": 0.1}),
    (prediction.td0, {"alpha": prediction.power(0.5, 0.7)}),
    (prediction.n_step_td, {"alpha": 0.1, "n": 3}),
    (prediction.td_lambda, {"alpha": 0.1, "lam": 0.5}),
    (prediction.true_online_td, {"alpha": 0.1, "lam": 0.5}),
    (prediction.monte_carlo, {"visit": "first"}),
    (prediction.lambda_return, {"alpha": 0.1, "lam": 0.5}),
]
for learner, options in learners:
    for x in learner(sample.Stream(world, pi, np.random.default_rng(1), limit=20), V=first, every=50, **options):
        if x.t >= 2000:
            print(learner.__name__, x.V.tobytes().hex())
            break
x, outcome = sample.Stream(spread, np.ones((spread.S, 1)), np.random.default_rng(2)).draw(999)
print(outcome.tobytes().hex())
for learner in (control.q_learning, control.double_q_learning):
    print(next(learner(world, np.random.default_rng(7), alpha=0.1, eps=0.1, limit=30, every=2000)).Q.tobytes().hex())
"""


def test_same_bits_plain_compiled_cold_and_warm(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    plain = output(SCRIPT, TABRL_NUMBA="0")
    assert len(plain.splitlines()) == 10
    cold = output(SCRIPT, TABRL_NUMBA="1", NUMBA_CACHE_DIR=str(tmp_path))
    written = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc"))
    assert len(written) >= 8
    assert cold == plain
    assert output(SCRIPT, TABRL_NUMBA="1", NUMBA_CACHE_DIR=str(tmp_path)) == plain
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")) == written
