"""Networks and passes by counting calls, settings and rewards as engines take them: rows E2.10 and E2.12 of the ledger.

A forward pass of a token is counted where a network is asked about it: while it is drawn, and in each look at a batch.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from tabrl import losses, optimise
from tabrl.tokens import bridge, draws, methods, table, train
from tabrl.tokens.draws import Dynamic, Groups
from tabrl.tokens.methods import Penalty
from tabrl.tokens.task import TokenTask
from tabrl.verify.record import Check, Comparison, agree
from tabrl.verify.token_models import Tiny, listed, tinies

# E2.10


class Counted(NamedTuple):
    """What a run holds, and what is told of it."""

    policy: "Network"
    reference: "Network"
    critic: "Values"


class Network(table.TableLM):
    """A policy that counts the batches it is asked about, and the tokens it draws."""

    looks = 0
    drawn = 0.0

    def rows(self, x: Any) -> Any:
        """One more look at a batch."""
        self.looks += 1
        return super().rows(x)

    def begin(self, prompt: Any) -> Any:
        """One token for each sequence."""
        self.drawn += len(prompt)
        return super().begin(prompt)


class Values(table.TableCritic):
    """A critic that counts likewise."""

    looks = 0

    def values(self, x: Any) -> Any:
        """One more look at a batch."""
        self.looks += 1
        return super().values(x)


def held() -> list[Check]:
    """E2.10: networks held and forward passes for each token, as records tell them and as calls are counted."""
    counted, told = zip(*runs(), strict=True)
    return [
        agree("E2.10", "networks and passes of a record, against calls counted in a run", counted),
        agree("E2.10", "networks: PPO 3, GRPO with KL 2, without it 1, DAPO 1", told),
        agree("E2.10", "passes of dynamic sampling, dropped groups drawn too", [refilled(x) for x in tinies()[:2]]),
    ]


def runs() -> Iterator[tuple[Comparison, Comparison]]:
    """Two updates of each method; the second one is judged, which takes one look more."""
    kl = Penalty(0.25)
    made: tuple[tuple[str, int, dict[str, Any]], ...] = (
        ("grpo", 1, {}), ("grpo", 2, {"kl": kl}), ("grpo", 2, {"kl": kl, "epochs": 3}),
        ("dapo", 1, {"draw": Groups(3)}), ("rloo", 1, {}), ("gspo", 1, {"epochs": 2}), ("ppo", 3, {}),
        ("ppo", 2, {"kl": None, "epochs": 1}),
    )  # fmt: skip
    for name, networks, parts in made:
        x = run(name, parts)
        found = next(x[1])
        looks = x[0].policy.looks - 1 + x[0].reference.looks + x[0].critic.looks
        used = 1 + (x[0].reference.looks > 0) + (x[0].critic.looks > 0)
        yield (
            Comparison(f"{name} {parts}", [found.networks, found.passes], [used, 1 + looks / 2]),
            Comparison(f"{name} {parts}", found.networks, networks),
        )


def run(name: str, parts: dict[str, Any]) -> tuple[Counted, train.Training]:
    """A run whose networks count."""
    x = tinies()[1]
    held = Counted(Network(x.task, x.logp()), Network(x.task, x.logp(x.ref)), Values(x.task))
    rng = np.random.default_rng(59)
    more: dict[str, Any] = {"draw": Groups(3), "reference": held.reference, "every": 2} | parts
    if name == "ppo":
        return held, train.ppo(x.task, held.policy, held.critic, rng, **more)
    return held, train.METHODS[name](x.task, held.policy, rng, **more)


def refilled(x: Tiny) -> Comparison:
    """All that is drawn, over what is used, and one look at that."""
    draw = Dynamic(2, 4)
    drawn = draw(x.policy(), np.random.default_rng(61))
    found = next(train.dapo(x.task, x.policy(), np.random.default_rng(61), draw=draw))
    used = drawn.x.mask.sum()
    seen, rng, tokens = 0, np.random.default_rng(61), 0.0
    while seen < len(drawn.x.reward):
        more = Groups(2, 4)(x.policy(), rng)
        r = more.x.reward.reshape(-1, 2)
        tokens, seen = tokens + more.x.mask.sum(), seen + 2 * int((r[:, 0] != r[:, 1]).sum())
    return Comparison(x.name, found.passes, 1 + tokens / used)


# E2.12


def handed_over() -> list[Check]:
    """E2.12: the settings name what exists; prompts and rewards as text are those of the task."""
    return [
        agree("E2.12", "names of the settings that are no part of a method", list(unknown())),
        agree("E2.12", "rewards of all sequences as text, as TRL asks for them, in fractions", list(as_trl())),
        agree("E2.12", "rewards of all sequences as text, as verl asks for them, in fractions", list(as_verl())),
        agree("E2.12", "texts that are no answer", nonsense()),
        agree("E2.12", "prompts in rows, in the task's order", prompts()),
    ]


def names() -> dict[str, Callable[..., Any]]:
    """What settings may be made of."""
    places = (methods, draws, optimise)
    return {k: v for place in places for k, v in vars(place).items() if callable(v)} | {"TokenTask": TokenTask}


def unknown() -> Iterator[Comparison]:
    """Arguments that the class or function does not have; 0 of them."""
    for row in bridge.SETTINGS:
        if row.ours[0] not in "(–":
            text = row.ours if "(" in row.ours.partition("=")[0] else f"Method({row.ours})"
            call = ast.parse(text, mode="eval").body
            calls = [y for y in ast.walk(call) if isinstance(y, ast.Call)]
            missing = [k.arg for y in calls for k in y.keywords if k.arg not in parameters(y)]
            how = [
                k.value.value for y in calls for k in y.keywords if k.arg == "how" and isinstance(k.value, ast.Constant)
            ]
            yield Comparison(row.what, len(missing) + len(set(how) - set(losses.HOWS)), 0)


def parameters(call: ast.Call) -> set[str]:
    """The arguments of what a call names; none where there is nothing of that name."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    return set(inspect.signature(names()[name]).parameters) if name in names() else set()


def texts(x: Tiny, *, eos: bool) -> tuple[list[str], list[str]]:
    """Prompts and answers of all sequences; EOS as a word or dropped, as decoders do."""
    words = x.task.vocab if eos else [*x.task.vocab[: x.task.C], *[""] * (x.task.V - x.task.C)]
    return [x.task.prompts[w.k] for w in listed(x)], [" ".join(words[a] for a in w.o).strip() for w in listed(x)]


def as_trl() -> Iterator[Comparison]:
    """Lists of texts, with and without EOS, and of messages."""
    for x, eos, chat in product(tinies(), (True, False), (True, False)):
        asked, said = texts(x, eos=eos)
        give: Callable[[list[str]], Any] = (lambda y: [[{"role": "user", "content": z}] for z in y]) if chat else list
        found = bridge.reward_function(x.task)(prompts=give(asked), completions=give(said), completion_ids=None)
        yield Comparison(f"{x.name}, {'EOS' if eos else 'no EOS'}", found, [w.r for w in listed(x)])


def as_verl() -> Iterator[Comparison]:
    """One at a time."""
    for x in tinies():
        rows, score = bridge.prompt_set(x.task, chat=True), bridge.verl_reward(x.task)
        found = [
            score(rows[w.k]["data_source"], text, rows[w.k]["reward_model"]["ground_truth"], rows[w.k]["extra_info"])
            for w, text in zip(listed(x), texts(x, eos=True)[1], strict=True)
        ]
        yield Comparison(x.name, found, [w.r for w in listed(x)])


def nonsense() -> list[Comparison]:
    """Unknown words, too many, something behind EOS."""
    x = tinies()[0]
    said = ["1 one", "1 1 1 1", "1 <eos> 1", "", "11", "The answer is 1."]
    score = bridge.reward_function(x.task)(prompts=[x.task.prompts[0]] * len(said), completions=said)
    return [Comparison(x.name, score, [0.0] * len(said))]


def prompts() -> list[Comparison]:
    """Text, number and place agree."""
    found = list[Comparison]()
    for x in tinies():
        rows = bridge.prompt_set(x.task)
        told = [
            [x.task.prompts.index(y["prompt"]), float(y["reward_model"]["ground_truth"]), y["extra_info"]["index"]]
            for y in rows
        ]
        found.append(Comparison(x.name, told, [[k] * 3 for k in range(x.task.K)]))
    return found
