"""All parameters of a network in one vector, and the same numbers by name.

n parameters. The named tensors are views of the vector: writing the vector is one copy, whatever their number.
"""

from math import prod
from typing import Any

import numpy as np
import torch

from tabrl.errors import ShapeError
from tabrl.tokens.policy import Pull
from tabrl.types import F

Tensor = torch.Tensor
Named = dict[str, Tensor]
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def device_of(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is some. Raises ValueError for others and for what is not there.

    >>> device_of("cpu")
    device(type='cpu')
    """
    kind, there = name.split(":")[0], torch.cuda.is_available()
    if kind not in ("auto", "cpu", "cuda") or (kind == "cuda" and not there):
        raise ValueError(f"device is {name!r}; one of auto, cpu{', cuda' * there} is expected")
    return torch.device(("cuda" if there else "cpu") if name == "auto" else name)


def precision(dtype: Any) -> torch.dtype:
    """float32 or float64, as a torch type or by name. Raises ValueError for others.

    >>> precision("float64")
    torch.float64
    """
    found = PRECISIONS.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype is {dtype!r}; one of {', '.join(PRECISIONS)} is expected")
    return found


def parameters(start: dict[str, F], device: torch.device, dtype: torch.dtype) -> "Parameters":
    """Parameters on a device that begin with the arrays `start`."""
    flat = torch.as_tensor(np.concatenate([x.ravel() for x in start.values()]))
    return Parameters(flat.to(device, dtype), {name: x.shape for name, x in start.items()})


class Parameters:
    """A vector, its named parts, and the way back from slopes of an output to the gradient of the vector."""

    def __init__(self, flat: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
        self.flat, self.shapes = flat, shapes
        parts = flat.split_with_sizes([prod(shape) for shape in shapes.values()])
        self.named: Named = {
            name: part.view(shape).detach().requires_grad_()
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def copy(self) -> "Parameters":
        """The same numbers, not shared."""
        return Parameters(self.flat.clone(), self.shapes)

    def set(self, theta: Any) -> None:
        """Write all parameters (n,). Raises ShapeError."""
        new = theta if isinstance(theta, Tensor) else torch.as_tensor(np.array(theta))
        if new.shape != self.flat.shape:
            raise ShapeError(f"theta has shape {tuple(new.shape)}; (n,) = {tuple(self.flat.shape)} is expected")
        self.flat.copy_(new.detach())

    def pull(self, output: Tensor) -> Pull:
        """The function from slopes of the output to a new vector (n,). It frees the graph, so it is called once."""

        def pulled(slope: Tensor) -> Tensor:
            parts = list(self.named.values())
            gradients = torch.autograd.grad(output, parts, slope.detach(), allow_unused=True, materialize_grads=True)
            return torch.cat([g.reshape(-1) for g in gradients])

        return pulled
