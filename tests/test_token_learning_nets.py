"""The same tasks with networks: exact success, exact 0/1 rewards, documented defaults. Needs torch.

All ten seeds of the GRU reach 95 % on all four tasks (docs/benchmarks.md); here two where a run takes a second.
"""

from itertools import islice

import numpy as np
import pytest

from tabrl.envs import token_tasks
from tabrl.tokens import train

torch = pytest.importorskip("torch")
nets = pytest.importorskip("tabrl.tokens.nets")
SEEDS = {"copy": 2, "sum": 2, "modular": 10, "brackets": 10}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def updates_to(success: float, run: train.Training, limit: int = 400) -> int | None:
    return next((x.k for x in islice(run, limit // 20) if x.p.mean() >= success), None)


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("method", ["grpo", "dapo"])
def test_every_seed_of_the_gru(name: str, method: str) -> None:
    task = token_tasks.TASKS[name]()
    found = []
    for seed in np.random.SeedSequence(0).spawn(SEEDS[name]):
        rng = np.random.default_rng(seed)
        run = train.METHODS[method](task, nets.GRU(task, rng, device="cpu"), rng, every=20)
        found.append(updates_to(0.95, run))
    assert None not in found


def test_the_transformer_and_a_critic() -> None:
    task = token_tasks.TASKS["modular"]()
    rng = np.random.default_rng(0)
    policy = nets.Transformer(task, rng, device="cpu")
    assert updates_to(0.95, train.grpo(task, policy, rng, every=20)) is not None
    policy, critic = nets.GRU(task, rng, device="cpu"), nets.GRUCritic(task, rng, device="cpu")
    assert updates_to(0.95, train.ppo(task, policy, critic, rng, every=20)) is not None


def test_a_resumed_run_has_the_same_bits(tmp_path: object) -> None:
    task, file = token_tasks.TASKS["parity"](), f"{tmp_path}/run.npz"

    def run(seed: int) -> train.Training:
        rng = np.random.default_rng(seed)
        policy, critic = nets.GRU(task, rng, device="cpu"), nets.GRUCritic(task, rng, device="cpu")
        return train.ppo(task, policy, critic, rng)

    whole, first = run(0), run(0)
    straight = [x.J for x in islice(whole, 10)]
    begun = [x.J for x in islice(first, 4)]
    first.save(file)
    resumed = run(1).resume(file)
    assert begun + [x.J for x in islice(resumed, 6)] == straight
    assert torch.equal(resumed.policy.theta, whole.policy.theta)
