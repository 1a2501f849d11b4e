"""NumPy or torch by the argument, never by import."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tabrl._xp import at_least, library, namespace, one_of
from tabrl.errors import ShapeError

ROOT = Path(__file__).resolve().parent.parent


def test_numpy_arrays_and_numbers() -> None:
    assert library(np.zeros(2), "x") is np
    assert namespace(x=np.float64(1.0), y=np.zeros(())) is np
    assert namespace(x=np.zeros((2, 3)), y=np.zeros((2, 3), int), z=np.zeros((2, 3), bool)) is np


@pytest.mark.parametrize("x", [1.0, [1.0], None, "one"])
def test_anything_else_is_refused(x: Any) -> None:
    with pytest.raises(TypeError, match=f"^adv is a {type(x).__name__}; a NumPy array or a torch tensor is expected"):
        namespace(logp=np.zeros(1), adv=x)


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"^adv has shape \(3,\); the shape of logp, \(2,\), is expected"):
        namespace(logp=np.zeros(2), old=np.zeros(2), adv=np.zeros(3))
    with pytest.raises(ShapeError, match=r"^adv has shape \(\); the shape of logp, \(1,\)"):
        namespace(logp=np.zeros(1), adv=np.float64(1.0))


def test_torch_is_what_is_loaded_under_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor:
        shape = (2,)

    stand_in = ModuleType("torch")
    monkeypatch.setitem(sys.modules, "torch", stand_in)  # half loaded: it has no Tensor yet
    assert namespace(x=np.zeros(2)) is np
    stand_in.Tensor = Tensor  # type: ignore[attr-defined]
    assert namespace(x=Tensor(), y=Tensor()) is stand_in
    with pytest.raises(TypeError, match="y is a ndarray; a Tensor is expected, as x is one"):
        namespace(x=Tensor(), y=np.zeros(2))
    with pytest.raises(TypeError, match="y is a Tensor; a ndarray is expected, as x is one"):
        namespace(x=np.zeros(2), y=Tensor())
    monkeypatch.setitem(sys.modules, "torch", None)  # what an import that is forbidden leaves
    assert namespace(x=np.zeros(2)) is np
    with pytest.raises(TypeError, match="x is a Tensor; a NumPy array or a torch tensor"):
        namespace(x=Tensor())


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert namespace(x=torch.zeros(2), y=torch.zeros(2)) is torch
    with pytest.raises(ShapeError, match=r"^y has shape \(3,\); the shape of x, \(2,\), is expected"):
        namespace(x=torch.zeros(2), y=torch.zeros(3))
    with pytest.raises(TypeError, match="y is a ndarray; a Tensor is expected, as x is one"):
        namespace(x=torch.zeros(2), y=np.zeros(2))


def test_the_equations_work_where_torch_cannot_be_imported() -> None:
    program = """
import sys
sys.modules["torch"] = None
import numpy as np
from tabrl import advantages, divergences, losses, weights
x, group = np.array([[-1.0, -2.0], [-0.5, -1.0]]), np.array([0, 0])
adv = advantages.group_advantages(np.array([0.0, 1.0]), group, std="none")
loss = losses.ppo_clip(x, x, np.stack([adv, adv], 1))
print(losses.aggregate(loss, x < 0, how="group_token", group=group), sys.modules["torch"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.0", "None"]


def test_using_the_equations_does_not_load_torch() -> None:
    program = """
import sys
import numpy as np
from tabrl import advantages, divergences, losses, weights
losses.ppo_clip(np.zeros(2), np.zeros(2), np.ones(2)), advantages.whiten(np.arange(3.0))
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_numbers_and_choices_are_named() -> None:
    at_least(0, low=0.0, high=np.inf)
    one_of(("a", "b"), kind="b")
    for wrong in (-0.1, float("nan"), None):
        with pytest.raises(ValueError, match=f"^high is {wrong}; a number >= 0 is expected"):
            at_least(0, low=1.0, high=wrong)
    with pytest.raises(ValueError, match="kind is 'c'; one of a, b is expected"):
        one_of(("a", "b"), kind="c")
