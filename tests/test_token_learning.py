"""Tasks that are learned by every seed: exact success, exact 0/1 rewards, documented defaults, tables."""

from itertools import islice

import numpy as np
import pytest

from tabrl.envs import token_tasks
from tabrl.tokens import train
from tabrl.tokens.table import TableCritic, TableLM

SEEDS = 10
LIMIT = 400  # updates


def updates_to(success: float, run: train.Training) -> int | None:
    """Updates until the mean exact success is reached, looked at after every 20; None if it is not."""
    return next((x.k for x in islice(run, LIMIT // 20) if x.p.mean() >= success), None)


@pytest.mark.parametrize("name", ["copy", "sum", "brackets", "modular"])
@pytest.mark.parametrize("method", ["grpo", "dapo"])
def test_ten_of_ten_seeds(name: str, method: str) -> None:
    task = token_tasks.TASKS[name]()
    found = []
    for seed in np.random.SeedSequence(0).spawn(SEEDS):
        run = train.METHODS[method](task, TableLM(task), np.random.default_rng(seed), every=20)
        found.append(updates_to(0.95, run))
    assert None not in found


@pytest.mark.parametrize("method", ["dr-grpo", "rloo", "gspo", "cispo", "ppo"])
def test_their_relatives_learn_too(method: str) -> None:
    task = token_tasks.TASKS["modular"]()
    for seed in np.random.SeedSequence(1).spawn(3):
        rng = np.random.default_rng(seed)
        if method == "ppo":
            run = train.ppo(task, TableLM(task), TableCritic(task), rng, every=20)
        else:
            run = train.METHODS[method](task, TableLM(task), rng, every=20)
        assert updates_to(0.95, run) is not None
