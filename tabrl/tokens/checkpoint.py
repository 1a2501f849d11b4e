"""Runs in files: .npz without pickle, sizes checked before they are read, written whole or not at all."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tabrl.errors import ModelError
from tabrl.files import named, reading
from tabrl.optimise import Step, adam, held, sgd
from tabrl.output import atomic
from tabrl.tokens.critic import Gae
from tabrl.tokens.judge import Judge, numbers

if TYPE_CHECKING:
    from tabrl.tokens.train import Training

FORMAT = 1


def save(run: "Training", path: str | Path) -> None:
    """Write all that changes during a run."""
    with atomic(path) as stream:
        np.savez(stream, **state(run))


def state(run: "Training") -> dict[str, Any]:
    """All that changes during a run, by name: NumPy arrays, and the state of the random numbers as JSON."""
    found: dict[str, Any] = {
        "format": np.int64(FORMAT), "task": np.str_(repr(run.policy.task)), "method": np.str_(repr(run.method)),
        "k": np.int64(run.k), "t": np.int64(run.t), "beta": np.float64(run.beta),
        "rng": np.str_(json.dumps(run.rng.bit_generator.state, default=int)),
        "theta": numbers(run.policy.theta), "reference": numbers(run.reference.theta),
    }  # fmt: skip
    for name, step in steps(run).items():
        found |= {
            f"{name}_{part}": numbers(np.asarray(x) if np.ndim(x) == 0 else x) for part, x in memory(step).items()
        }
    if isinstance(run.method.credit, Gae):
        found["critic"] = numbers(run.method.credit.critic.theta)
    return found


def load(run: "Training", path: str | Path) -> None:
    """Put a run where another one of the same task, method and sizes was saved. Raises ModelError for other files."""
    file, expected = named(path), state(run)
    with reading(path, "Training.save") as (stream, _), np.load(stream, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    for name in ("format", "task", "method"):
        if name in found and str(found[name]) != str(expected[name]):
            raise ModelError(f"{file} has the {name} {found[name]}; {expected[name]} is expected, as the run has it")
    for name, x in expected.items():
        if name not in found:
            raise ModelError(f"{file} has no {name}; a file written by a run of the same method is expected")
        same = found[name].shape == x.shape or (name.endswith(("_m", "_v")) and not (x.shape and found[name].shape))
        if not same or found[name].dtype.kind != x.dtype.kind:
            raise ModelError(f"{file}: {name} has shape {found[name].shape}; {x.shape} is expected, as the run has it")
    fill(run, found)


def fill(run: "Training", found: dict[str, Any]) -> None:
    """Set what `state` reads."""
    asarray = run.policy.asarray
    run.k, run.t, run.beta = int(found["k"]), int(found["t"]), float(found["beta"])
    run.rng.bit_generator.state = json.loads(str(found["rng"]))
    run.policy.theta, run.reference.theta = asarray(found["theta"]), asarray(found["reference"])
    for name, step in steps(run).items():
        for part in memory(step):
            x = found[f"{name}_{part}"]
            setattr(step, part, asarray(x) if x.ndim else int(x) if part == "k" else float(x))
    if isinstance(run.method.credit, Gae):
        run.method.credit.critic.theta = asarray(found["critic"])
    run.judge = Judge(run.reference, run.judge.G)


def steps(run: "Training") -> dict[str, Any]:
    """The optimisers of a run."""
    found = {"step": innermost(run.step)}
    if isinstance(run.method.credit, Gae):
        found["critic_step"] = innermost(run.method.credit.step)
    return found


def innermost(step: Step) -> Any:
    """The optimiser that remembers. Raises ModelError for one that is not known here."""
    while isinstance(step, held):
        step = step.step
    if not isinstance(step, sgd | adam):
        raise ModelError(f"step is {step!r}; adam or sgd of tabrl.optimise is expected, whose memory can be saved")
    return step


def memory(step: Any) -> dict[str, Any]:
    """What an optimiser remembers."""
    return {name: x for name, x in vars(step).items() if name in ("k", "m", "v")}
