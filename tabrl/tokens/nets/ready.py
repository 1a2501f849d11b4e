"""Policies and critics that are ready to use: a body, a head, sizes that suit tasks of thousands of prefixes."""

from typing import Any

from tabrl.control.acting import Rng
from tabrl.tokens.nets.gru import GRUBody
from tabrl.tokens.nets.network import Critic, NetworkLM
from tabrl.tokens.nets.transformer import TransformerBody
from tabrl.tokens.task import TokenTask


class GRU(NetworkLM):
    """A policy whose memory of a sequence is the state of a gated recurrent unit.

    hidden: H. settings: head=0.01, device="auto", dtype="float32", as in `nets.network.Network`. Ledger E2.1; for the
    equations see `nets.gru`.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> logits, pull = GRU(task, np.random.default_rng(0)).logits()
    >>> logits.shape
    torch.Size([1, 2])
    """

    def __init__(self, task: TokenTask, rng: Rng, *, hidden: int = 64, **settings: Any) -> None:
        super().__init__(task, rng, GRUBody(task, hidden), **settings)


class Transformer(NetworkLM):
    """A policy that attends to the prompt and all tokens before; it keeps their keys and values while it samples.

    width: D, a multiple of heads. layers: each attends and then mixes by a perceptron. settings: as in `GRU`.
    Raises ValueError. Ledger E2.1; for the equations see `nets.transformer`.

    >>> import numpy as np
    >>> from tabrl.tokens.task import TokenTask
    >>> task = TokenTask("one", ("0", "1"), ("say 1",), 1, lambda prompt, tokens: 1.0 * tokens[:, 0])
    >>> len(Transformer(task, np.random.default_rng(0)).theta)
    25666
    """

    def __init__(
        self, task: TokenTask, rng: Rng, *, width: int = 32, heads: int = 2, layers: int = 2, **settings: Any
    ) -> None:
        super().__init__(task, rng, TransformerBody(task, width, heads, layers), **settings)


class GRUCritic(Critic):
    """A critic with the body of `GRU`, and its settings: values of prefixes. Ledger E2.2."""

    def __init__(self, task: TokenTask, rng: Rng, *, hidden: int = 64, **settings: Any) -> None:
        super().__init__(task, rng, GRUBody(task, hidden), **settings)


class TransformerCritic(Critic):
    """A critic with the body of `Transformer`, and its settings: values of prefixes. Ledger E2.2."""

    def __init__(
        self, task: TokenTask, rng: Rng, *, width: int = 32, heads: int = 2, layers: int = 2, **settings: Any
    ) -> None:
        super().__init__(task, rng, TransformerBody(task, width, heads, layers), **settings)
