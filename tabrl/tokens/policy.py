"""What a policy over tokens must do, be it a table or a network.

B sequences of at most T tokens, V next tokens, N prefixes, n parameters. A forward pass returns logits and `pull`, the
vector-Jacobian product: pull(slope) is the gradient (n,) of any number whose derivative with respect to the logits is
`slope`. Losses thus need no autograd, and a table and a network run through the same code.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from tabrl._xp import Array
from tabrl.control.acting import Rng
from tabrl.tokens.rollout import Rollouts
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import Tree

Pull: TypeAlias = Callable[[Array], Array]
State: TypeAlias = Any  # what a policy remembers of the sequences it is writing


class Policy(Protocol):
    """A distribution over next tokens for every prefix, with parameters."""

    @property
    def task(self) -> TokenTask:
        """The task it writes answers for."""

    @property
    def tree(self) -> Tree:
        """The task's tree in arrays of the policy's library, device and type."""

    theta: Array  # (n,) all parameters; setting it sets them
    lr: float  # a step size of Adam that suits it

    def logits(self) -> tuple[Array, Pull]:
        """Logits (N,V) of every prefix."""

    def rows(self, x: Rollouts) -> tuple[Array, Pull]:
        """Logits (B,T,V) before each token of given sequences."""

    def begin(self, prompt: Array) -> tuple[Array, State]:
        """Logits (B,V) of the first tokens of answers to prompts (B,)."""

    def advance(self, state: State, token: Array, row: Array) -> tuple[Array, State]:
        """Logits (B,V) of what follows the tokens (B,) that were drawn; row (B,) of the prefix they make."""

    def uniforms(self, rng: Rng, shape: tuple[int, ...]) -> Array:
        """Random numbers in [0, 1) of the policy's kind, from seeds that rng draws."""

    def copy(self) -> "Policy":
        """Another policy with the same parameters, not shared."""

    def asarray(self, x: Any) -> Array:
        """Numbers in an array of the policy's library and device; floats in its type."""
