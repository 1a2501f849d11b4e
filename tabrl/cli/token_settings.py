"""From the options of `tabrl tokens` to a run: its policy, and the parts of its method that the options replace.

An option that is not given leaves the method's own part; one that the method has no use for is refused.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tabrl.cli.parts import UsageError, known

if TYPE_CHECKING:
    from tabrl.tokens.methods import Method
    from tabrl.tokens.task import TokenTask
    from tabrl.tokens.train import Training

NETWORKS = {"gru": ("GRU", "GRUCritic"), "transformer": ("Transformer", "TransformerCritic")}
POLICIES = ("table", *NETWORKS)
PLACES = ("loss", "weighted", "reward")
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "float64")


def pair(text: str) -> tuple[float | None, float]:
    """Read LOW:HIGH, or one number for both.

    >>> pair("0.2:0.28"), pair("4")
    ((0.2, 0.28), (None, 4.0))
    """
    low, colon, high = text.partition(":")
    return (float(low), float(high)) if colon else (None, float(low))


def algorithms() -> list[str]:
    """The names that --algo takes."""
    from tabrl.tokens.train import METHODS

    return ["ppo", *METHODS]


def check(options: argparse.Namespace) -> None:
    """Refuse names and numbers that no run has, before anything is built."""
    from tabrl.advantages import STDS
    from tabrl.divergences import KINDS
    from tabrl.losses import HOWS

    known(options.algo, algorithms(), "algo")
    known(options.policy, POLICIES, "policy")
    choices = {"kl": KINDS, "place": PLACES, "std": STDS, "how": HOWS, "device": DEVICES, "dtype": DTYPES}
    for name, names in choices.items():
        if getattr(options, name) is not None:
            known(getattr(options, name), names, f"--{name}")
    for name, least in (("steps", 1), ("runs", 1), ("seed", 0), ("every", 1), ("G", 2), ("prompts", 1), ("epochs", 1)):
        x = getattr(options, name)
        if x is not None and x < least:
            raise UsageError(f"--{name} is {x}; a whole number >= {least} is expected")
    for name in ("entropy", "beta"):
        x = getattr(options, name)
        if x is not None and not 0 <= x < math.inf:
            raise UsageError(f"--{name} is {x}; a finite number >= 0 is expected")
    for name in ("lr", "target"):
        x = getattr(options, name)
        if x is not None and not 0 < x < math.inf:
            raise UsageError(f"--{name} is {x}; a finite number > 0 is expected")


def maker(options: argparse.Namespace, task: "TokenTask") -> Callable[[Any], "Training"]:
    """Return what begins a run, with all settings."""
    policies = partial(policy, options, task)
    first = bare(options, task, policies)
    settings = parts(options, task, first.method)
    if options.lr is not None:
        from tabrl.optimise import adam, held

        settings["step"] = held(1.0, adam(options.lr))
    return partial(start, options, task, policies, settings)


def bare(options: argparse.Namespace, task: "TokenTask", policies: Any) -> "Training":
    """A run with the method's own settings, to look them up."""
    import numpy as np

    return start(options, task, policies, {}, np.random.default_rng(0))


def start(
    options: argparse.Namespace, task: "TokenTask", policies: Any, settings: dict[str, Any], rng: Any
) -> "Training":
    """Begin a run."""
    from tabrl.tokens.train import METHODS, ppo

    made, critic = policies(rng)
    every = interval(options)
    if options.algo == "ppo":
        return ppo(task, made, critic, rng, every=every, **settings)
    return METHODS[options.algo](task, made, rng, every=every, **settings)


def interval(options: argparse.Namespace) -> int:
    """Updates per record, a divisor of all: about a fortieth of the run unless given."""
    if options.every is None:
        return max(k for k in range(1, max(1, options.steps // 40) + 1) if options.steps % k == 0)
    if options.steps % options.every:
        raise UsageError(f"--every is {options.every}; a divisor of --steps {options.steps} is expected")
    return int(options.every)


def policy(options: argparse.Namespace, task: "TokenTask", rng: Any) -> tuple[Any, Any]:
    """A policy at its beginning, and a critic for ppo (else None)."""
    with_critic = options.algo == "ppo"
    if options.policy == "table":
        from tabrl.tokens.table import TableCritic, TableLM

        for name in ("device", "dtype"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} is {getattr(options, name)!r}; none is expected for a table, only networks")
        return TableLM(task), TableCritic(task) if with_critic else None
    from tabrl.tokens import nets

    nets.torch.set_num_threads(1)  # small tensors: more threads only wait for one another
    settings = {name: getattr(options, name) for name in ("device", "dtype") if getattr(options, name) is not None}
    if options.device == "cuda" and not nets.torch.cuda.is_available():
        raise UsageError("--device is 'cuda'; cpu or auto is expected, as torch sees no CUDA device")
    actor, critic = (getattr(nets, name) for name in NETWORKS[options.policy])
    return actor(task, rng, **settings), critic(task, rng, **settings) if with_critic else None


def policy_words(options: argparse.Namespace, made: Any) -> str:
    """The policy in words."""
    where = "" if options.policy == "table" else f" on {made.device}, {str(made.dtype).removeprefix('torch.')}"
    return f"{options.policy}, {len(made.theta):,} parameters{where}"


def parts(options: argparse.Namespace, task: "TokenTask", base: "Method") -> dict[str, Any]:
    """The parts of a method that the options replace."""
    found: dict[str, Any] = {}
    sizes = {field: x for field, x in (("G", options.G), ("n", options.prompts)) if x is not None}
    if sizes:
        found["draw"] = base.draw._replace(**sizes)  # type: ignore[attr-defined]
    if options.std is not None or options.process:
        found["credit"] = credit(options, task, base)
    if options.clip is not None:
        found["loss"] = clip(base.loss, *options.clip)
    kl = penalty(options, base)
    if kl is not base.kl:
        found["kl"] = kl
    for name in ("how", "entropy", "epochs"):
        if getattr(options, name) is not None:
            found[name] = getattr(options, name)
    return found


def credit(options: argparse.Namespace, task: "TokenTask", base: "Method") -> Any:
    """Outcome or process supervision, with a standard deviation."""
    from tabrl.tokens.methods import Process

    if options.algo == "ppo":
        name = "--process" if options.process else f"--std {options.std}"
        raise UsageError(f"{name} is given; none is expected for ppo, whose advantages come from a critic")
    std = {} if options.std is None else {"std": options.std}
    if not options.process:
        return base.credit._replace(**std)
    if task.steps is None:
        raise UsageError(f"--process is given; a task with steps is expected, such as two-step; {task.name} has none")
    if options.place == "reward":
        raise UsageError("--place is 'reward'; loss or weighted is expected: with --process only steps are rewarded")
    return Process(**({"std": base.credit.std} | std))


def clip(loss: Any, low: float | None, high: float) -> Any:
    """A loss with other bounds: one number bounds both sides, or caps the ratio of cispo."""
    from tabrl.tokens.methods import Capped

    if isinstance(loss, Capped):
        return loss._replace(low=low, high=high)
    return loss._replace(low=high if low is None else low, high=high)


def penalty(options: argparse.Namespace, base: "Method") -> Any:
    """The KL to the reference; None for no KL."""
    from tabrl.tokens.methods import Penalty

    if options.beta == 0:
        return None
    given = {"beta": options.beta, "kind": options.kl, "place": options.place, "target": options.target}
    given = {name: x for name, x in given.items() if x is not None}
    if not given:
        return base.kl
    if base.kl is None and options.beta is None:
        raise UsageError(f"--beta is missing; the weight of the KL is expected, as {options.algo} has none by itself")
    return Penalty(**given) if base.kl is None else base.kl._replace(**given)
