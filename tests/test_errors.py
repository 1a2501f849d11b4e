"""Bad input: every mistake has its message, and none gives a silently different answer."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from models import csr, dense_P, dense_R, mdps

from tabrl import MDP, bellman, chain, checks, longrun, returns
from tabrl.errors import MissingExtra, ModelError, NotConverged, ShapeError

nan, inf = np.nan, np.inf
P = [[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.25, 0.75]]]
R = [[1.0, 2.0], [3.0, 4.0]]
EYE = np.eye(2)[:, None, :]


def model(P: Any = P, R: Any = R, gamma: Any = 0.9, **keywords: Any) -> MDP:
    return MDP(P, R, gamma, **keywords)


def changed(x: Any, where: tuple[int, ...], value: float) -> Any:
    y = np.array(x, dtype=float)
    y[where] = value
    return y


def coo(p: list[float], row: list[int], col: list[int], shape: tuple[int, int]) -> Any:
    return sp.coo_array((np.array(p), (np.array(row), np.array(col))), shape=shape)


def arrays(kind: Any, data: list[float], indices: list[int], indptr: list[int]) -> Any:
    return kind((np.array(data), np.array(indices), np.array(indptr)), shape=(2, 2))


CASES: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    # P
    "P nan": (ModelError, r"P\[s=1, a=0, s'=1\] is nan; a finite number", lambda: model(changed(P, (1, 0, 1), nan))),
    "P inf": (ModelError, r"P\[s=0, a=1, s'=0\] is inf; a finite number", lambda: model(changed(P, (0, 1, 0), inf))),
    "P -inf": (ModelError, r"P\[s=0, a=1, s'=0\] is -inf", lambda: model(changed(P, (0, 1, 0), -inf))),
    "P sparse nan": (ModelError, r"P\[s=1, a=0, s'=0\] is nan; a finite",
                     lambda: model(csr(changed(P, (1, 0, 0), nan)))),
    "P negative": (ModelError, r"P\[s=0, a=0, s'=0\] is -0\.5; a probability >= 0",
                   lambda: model([[[-0.5, 1.5], [0, 1]], P[1]])),
    "P sparse negative": (ModelError, r"P\[s=0, a=0, s'=0\] is -0\.5; a probability >= 0",
                          lambda: model(csr(np.array([[[-0.5, 1.5], [0, 1]], P[1]])))),
    "P row sum": (ModelError, r"P\[s=1, a=0\] sums to 0\.9; every row must be a distribution over next states; "
                  r"MDP\.normalised", lambda: model(changed(P, (1, 0, 0), 0.9))),
    "P sparse row sum": (ModelError, r"P\[s=1, a=0\] sums to 0\.9; .* MDP\.normalised",
                         lambda: model(csr(changed(P, (1, 0, 0), 0.9)))),
    "P zero row": (ModelError, r"P\[s=1, a=0\] sums to 0; .*legal.*terminal", lambda: model(changed(P, (1, 0, 0), 0))),
    "P slightly off": (ModelError, r"P\[s=1, a=0\] sums to 1\.00000001",
                       lambda: model(changed(P, (1, 0, 0), 1 + 1e-8))),
    "P action-major": (ShapeError, r"P has shape \(2, 3, 3\); \(S, A, S\) is expected; .*MDP\.from_toolbox",
                       lambda: model(np.full((2, 3, 3), 1 / 3))),
    "P action-last": (ShapeError, r"P has shape \(3, 3, 2\); \(S, A, S\)", lambda: model(np.full((3, 3, 2), 1 / 3))),
    "P two axes": (ShapeError, r"P has shape \(2, 2\); \(S, A, S\)", lambda: model(np.eye(2))),
    "P empty": (ShapeError, r"P has shape \(0, 2, 0\)", lambda: model(np.zeros((0, 2, 0)))),
    "P no actions": (ShapeError, r"P has shape \(2, 0, 2\)", lambda: model(np.zeros((2, 0, 2)))),
    "P ragged": (ShapeError, r"P has rows of different lengths", lambda: model([[[1.0], [0.5, 0.5]]])),
    "P complex": (ModelError, r"P has dtype complex128; a real array", lambda: model(np.array(P) * 1j)),
    "P text": (ModelError, r"P has dtype <U", lambda: model([[["a"]]])),
    "P object": (ModelError, r"P has dtype object", lambda: model(np.array(P, dtype=object))),
    "P hidden entries": (ModelError, r"P is a masked array",
                         lambda: model(np.ma.masked_array(P, mask=np.array(P) == 0.25))),
    "P sparse complex": (ModelError, r"P has dtype complex128", lambda: model(csr(np.array(P) * 1j))),
    "P sparse shape": (ShapeError, r"P has shape \(3, 2\); a sparse P is \(S\*A, S\)",
                       lambda: model(sp.csr_array((3, 2)))),
    "P sparse empty": (ShapeError, r"P has shape \(0, 2\)", lambda: model(sp.csr_array((0, 2)))),
    "P sparse, one axis": (ShapeError, r"P has shape \(4,\); a sparse array needs two axes",
                           lambda: model(sp.coo_array(np.ones(4)))),
    "P duplicates, COO": (ModelError, r"P has more than one entry at row 0, column 1; .*from_transitions",
                          lambda: model(coo([0.5, 1, 0.5], [0, 1, 0], [1, 1, 1], (2, 2)), [0, 0])),
    "P duplicates, CSR": (ModelError, r"P has more than one entry at row 0, column 1",
                          lambda: model(arrays(sp.csr_array, [0.5, 0.5, 1.0], [1, 1, 0], [0, 2, 3]), [0, 0])),
    "P duplicates, CSC": (ModelError, r"P has more than one entry at row 0, column 1",
                          lambda: model(arrays(sp.csc_array, [1.0, 0.5, 0.5], [1, 0, 0], [0, 1, 3]), [0, 0])),
    "P column index": (ModelError, r"P has a column index outside 0\.\.1",
                       lambda: model(arrays(sp.csr_array, [1.0, 1.0], [0, 7], [0, 1, 2]), [0, 0])),
    # R
    "R nan": (ModelError, r"R\[s=0, a=1\] is nan; a finite number", lambda: model(R=[[0, nan], [0, 0]])),
    "R inf": (ModelError, r"R\[s=1\] is inf", lambda: model(R=[0, inf])),
    "R nan, three axes": (ModelError, r"R\[s=1, a=0, s'=1\] is nan", lambda: model(R=changed(P, (1, 0, 1), nan))),
    "R sparse nan": (ModelError, r"R\[s=1, a=0, s'=1\] is nan",
                     lambda: model(csr(np.array(P)), csr(changed(P, (1, 0, 1), nan)))),
    "R length": (ShapeError, r"R has shape \(3,\); \(2,\), \(2, 2\) or \(2, 2, 2\)", lambda: model(R=[1, 2, 3])),
    "R shape": (ShapeError, r"R has shape \(2, 3\)", lambda: model(R=np.zeros((2, 3)))),
    "R action-major": (ShapeError, r"R has shape \(3, 2, 2\)", lambda: model(R=np.zeros((3, 2, 2)))),
    "R number": (ShapeError, r"R has shape \(\)", lambda: model(R=1.0)),
    "R function": (ModelError, r"R is <function.*array of shape", lambda: model(R=lambda s, a, x: 0.0)),
    "R complex": (ModelError, r"R has dtype complex128", lambda: model(R=np.array(R) * 1j)),
    "R sparse shape": (ShapeError, r"R has shape \(2, 2\); a sparse R is \(S\*A, S\) = \(4, 2\)",
                       lambda: model(csr(np.array(P)), sp.csr_array(np.eye(2)))),
    "R sparse duplicates": (ModelError, r"R has more than one entry at row 0, column 1",
                            lambda: model(csr(np.array(P)), coo([1, 1], [0, 0], [1, 1], (4, 2)))),
    "R dense beside sparse": (ShapeError, r"R is dense \(S, A, S\) while P is sparse",
                              lambda: model(csr(np.array(P)), np.zeros((2, 2, 2)))),
    # gamma
    "gamma above": (ModelError, r"gamma is 1\.01; a number in \[0, 1\]", lambda: model(gamma=1.01)),
    "gamma below": (ModelError, r"gamma is -0\.1", lambda: model(gamma=-0.1)),
    "gamma nan": (ModelError, r"gamma is nan", lambda: model(gamma=nan)),
    "gamma text": (ModelError, r"gamma is '0\.9'; a number", lambda: model(gamma="0.9")),
    "gamma none": (ModelError, r"gamma is None; a number", lambda: model(gamma=None)),
    "gamma array": (ModelError, r"gamma is \[0\.9, 0\.9\]; a number", lambda: model(gamma=[0.9, 0.9])),
    # terminal, legal
    "terminal leaks": (ModelError, r"P\[s=1, a=0\] moves 1 away from a terminal state; .*self-loop",
                       lambda: model(terminal=[False, True])),
    "terminal leaks, sparse": (ModelError, r"P\[s=1, a=0\] moves 1 away from a terminal",
                               lambda: model(csr(np.array(P)), terminal=[False, True])),
    "terminal half stays": (ModelError, r"P\[s=1, a=0\] stays with probability 0\.5",
                            lambda: model([[[0, 1]], [[0, 0.5]]], [0, 0], terminal=[0, 1])),
    "terminal pays": (ModelError, r"R\[s=1, a=0\] is 3; a terminal state pays 0; .*enters",
                      lambda: model(EYE, [0, 3], terminal=[0, 1])),
    "terminal pays, three axes": (ModelError, r"R\[s=1, a=0\] is 3; a terminal state pays 0",
                                  lambda: model(EYE, 3 * EYE, terminal=[0, 1])),
    "terminal pays, sparse": (ModelError, r"R\[s=1, a=0\] is 3; a terminal state pays 0",
                              lambda: model(csr(EYE), csr(3 * EYE), terminal=[0, 1])),
    "terminal as numbers": (ShapeError, r"terminal has shape \(1,\); a boolean mask of shape \(2,\)",
                            lambda: model(terminal=[1])),
    "terminal not a mask": (ModelError, r"terminal\[1\] is 2; True or False", lambda: model(terminal=[0, 2])),
    "terminal nan": (ModelError, r"terminal\[1\] is nan", lambda: model(terminal=[0, nan])),
    "legal shape": (ShapeError, r"legal has shape \(2,\); a boolean mask of shape \(2, 2\)",
                    lambda: model(legal=[1, 1])),
    "legal not a mask": (ModelError, r"legal\[s=0, a=1\] is 0\.5", lambda: model(legal=[[1, 0.5], [1, 1]])),
    "no legal action": (ModelError, r"legal\[s=1\] is all False; every non-terminal state needs a legal action",
                        lambda: model(legal=[[1, 1], [0, 0]])),
    # mu, names
    "mu shape": (ShapeError, r"mu has shape \(3,\); \(2,\) is expected", lambda: model(mu=[0.5, 0.5, 0])),
    "mu sum": (ModelError, r"mu sums to 0\.9; a distribution over 2 entries", lambda: model(mu=[0.5, 0.4])),
    "mu negative": (ModelError, r"mu\[0\] is -0\.5; a probability >= 0", lambda: model(mu=[-0.5, 1.5])),
    "mu nan": (ModelError, r"mu\[1\] is nan", lambda: model(mu=[0.5, nan])),
    "names too few": (ShapeError, r"names\.states has 1 labels; 2 \(or none\)", lambda: model(names=(("a",),))),
    "names of actions": (ShapeError, r"names\.actions has 3 labels; 2", lambda: model(names=((), ("a", "b", "c")))),
    "names twice": (ModelError, r"names\.states has 'a' twice; labels must differ", lambda: model(names=(("a", "a"),))),
    "names of text": (ModelError, r"names\.states is 'ab'; a list of labels", lambda: model(names={"states": "ab"})),
    "names unknown": (ModelError, r"names is \{'rooms'.*Names\(states, actions\)",
                      lambda: model(names={"rooms": ["a"]})),
    "names number": (ModelError, r"names is 3; Names", lambda: model(names=3)),
    # policies, values, chains
    "pi shape": (ShapeError, r"pi has shape \(2,\); \(2, 2\) is expected", lambda: chain.induce(model(), np.zeros(2))),
    "pi sum": (ModelError, r"pi\[s=1\] sums to 0\.5; every row must be a distribution over actions",
               lambda: chain.induce(model(), np.array([[1, 0], [0.5, 0]]))),
    "pi negative": (ModelError, r"pi\[s=0, a=0\] is -1\.0; a probability >= 0",
                    lambda: chain.induce(model(), np.array([[-1.0, 2], [1, 0]]))),
    "pi nan": (ModelError, r"pi\[0, 1\] is nan", lambda: chain.induce(model(), np.array([[1, nan], [1, 0]]))),
    "pi illegal": (ModelError, r"pi\[s=0, a=1\] is 0\.5; the action is illegal there, 0 is expected",
                   lambda: chain.induce(model(legal=[[1, 0], [1, 1]]), np.full((2, 2), 0.5))),
    "V shape": (ShapeError, r"V has shape \(3,\); \(2,\) is expected", lambda: bellman.q_from_v(model(), np.zeros(3))),
    "V column": (ShapeError, r"V has shape \(2, 1\)", lambda: bellman.q_from_v(model(), np.zeros((2, 1)))),
    "k": (ValueError, r"k is 0; at least one moment", lambda: chain.return_moments(model(), np.full((2, 2), 0.5), 0)),
    "target": (ShapeError, r"target has shape \(3,\)",
               lambda: longrun.hitting_times(chain.induce(model(), np.eye(2)), np.ones(3, bool))),
    "start": (ModelError, r"mu sums to 2", lambda: chain.occupancy(chain.induce(model(), np.eye(2)), np.ones(2))),
    "discount": (ShapeError, r"discount has shape \(1,\); .*\(2,\)",
                 lambda: returns.discounted_sum(np.zeros(2), np.zeros(1))),
    "tol": (ValueError, r"tol is 0; a positive number", lambda: checks.tolerance(0)),
    "tol nan": (ValueError, r"tol is nan; a positive number", lambda: checks.tolerance(nan)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_message(case: str) -> None:
    kind, pattern, wrong = CASES[case]
    with pytest.raises(kind) as caught:
        wrong()
    assert type(caught.value) is kind
    assert re.match(pattern, str(caught.value)), str(caught.value)
    assert "; " in str(caught.value)


def test_missing_extra_gives_the_command() -> None:
    error = MissingExtra("torch", "torch", "the neural policy")
    assert str(error) == 'torch is not installed; the neural policy needs it; run: pip install "tabrl[torch]"'
    assert isinstance(error, ImportError)


def test_classes() -> None:
    assert issubclass(ModelError, ValueError) and issubclass(ShapeError, ValueError)
    assert issubclass(NotConverged, RuntimeError)
    assert NotConverged("slow", last=7).last == 7 and NotConverged("slow").last is None


# A valid model, spoilt in one way: there must be an error, whatever the model.
Parts = dict[str, Any]


def spoil_nan(m: Parts, i: int) -> None:
    m["P"][spot(m, i)] = nan


def spoil_inf(m: Parts, i: int) -> None:
    m["R"][spot(m, i)] = inf


def spoil_sum(m: Parts, i: int) -> None:
    s, a, x = spot(m, i)
    m["P"][s, a, x] += 1e-3


def spoil_scale(m: Parts, i: int) -> None:
    s, a, _ = spot(m, i)
    m["P"][s, a] *= 0.999


def spoil_sign(m: Parts, i: int) -> None:
    s, a, x = spot(m, i)
    m["P"][s, a, x] -= 2.0
    m["P"][s, a, (x + 1) % m["P"].shape[0]] += 2.0


def spoil_gamma(m: Parts, i: int) -> None:
    m["gamma"] = (1.5, -0.5, nan, inf)[i % 4]


def spoil_mu(m: Parts, i: int) -> None:
    m["mu"] = m["mu"] * (0.5, -1.0, nan)[i % 3]


def spoil_legal(m: Parts, i: int) -> None:
    m["legal"][spot(m, i)[0]] = False


def spoil_terminal(m: Parts, i: int) -> None:
    """Declare terminal a state that moves on, or pay in one."""
    s, a, _ = spot(m, i)
    m["terminal"][s] = True
    m["P"][s, a] = np.eye(len(m["P"]))[(s + 1) % len(m["P"])]


def spoil_payment(m: Parts, i: int) -> None:
    s, a, _ = spot(m, i)
    m["terminal"][s] = True
    m["P"][s] = 0.0
    m["R"][s] = 0.0
    m["R"][s, a, s] = 1.0


def spoil_names(m: Parts, i: int) -> None:
    m["names"] = (("same",) * len(m["P"]),)


def spoil_size(m: Parts, i: int) -> None:
    name = ("P", "R", "mu", "terminal", "legal")[i % 5]
    m[name] = m[name][:-1]


def spoil_axes(m: Parts, i: int) -> None:
    m["P"] = np.swapaxes(m["P"], 1, 2) if m["P"].shape[0] != m["P"].shape[1] else m["P"][0]


def spot(m: Parts, i: int) -> tuple[int, int, int]:
    """A transition that is possible, in a state that is not terminal."""
    possible = np.argwhere(np.nan_to_num(m["P"]) * ~m["terminal"][:, None, None] * m["legal"][:, :, None] > 0)
    s, a, x = possible[i % len(possible)]
    return int(s), int(a), int(x)


SPOILERS = [f for name, f in sorted(globals().items()) if name.startswith("spoil_")]


@given(mdps(S=4), st.sampled_from(SPOILERS), st.integers(0, 1000), st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_spoilt_model_never_passes(m: MDP, spoil: Callable[[Parts, int], None], i: int, sparse: bool) -> None:
    parts: Parts = {"P": dense_P(m), "R": dense_R(m).copy(), "gamma": m.gamma, "names": ()}
    parts |= {name: getattr(m, name).copy() for name in ("mu", "terminal", "legal")}
    MDP(**parts)
    spoil(parts, i)
    if sparse and parts["P"].ndim == 3:
        parts["P"] = csr(parts["P"])
        parts["R"] = csr(parts["R"]) if parts["R"].ndim == 3 and len(parts["R"]) else parts["R"]
    with pytest.raises((ModelError, ShapeError), match="; "):
        MDP(**parts)


@given(mdps(sparse=True), st.integers(0, 1000), st.sampled_from(["P", "R"]))
@settings(max_examples=60, deadline=None)
def test_a_split_entry_never_passes(m: MDP, i: int, name: str) -> None:
    """One entry written as two halves: scipy would add them up without a word."""
    P = sp.coo_array(m.P)
    i %= P.nnz
    row, col = P.coords
    data = P.data.copy()
    data[i] /= 2
    split = sp.coo_array((np.append(data, data[i]), (np.append(row, row[i]), np.append(col, col[i]))), shape=P.shape)
    parts: Parts = {"P": m.P, "R": m.R, "gamma": m.gamma, "terminal": m.terminal, "legal": m.legal}
    parts[name] = split
    with pytest.raises(ModelError, match=rf"{name} has more than one entry at row {row[i]}, column {col[i]}"):
        MDP(**parts)
