"""Networks over tokens: torch's own layers, differences and the table are the judges. Skipped without torch."""

import copy
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from paths import Z

from tabrl.errors import ModelError, ShapeError
from tabrl.optimise import adam
from tabrl.tokens import recursion
from tabrl.tokens.rollout import Rollouts, sample
from tabrl.tokens.table import TableCritic, TableLM
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import prefixes

torch = pytest.importorskip("torch")

from tabrl.tokens.nets import GRU, Critic, GRUCritic, NetworkLM, Transformer, TransformerCritic  # noqa: E402

SMALL: dict[str, Callable[..., NetworkLM]] = {
    "gru": lambda task, rng, **settings: GRU(task, rng, hidden=5, **settings),
    "transformer": lambda task, rng, **settings: Transformer(task, rng, width=4, heads=2, layers=2, **settings),
}
STEP = 1e-4  # of differences: error of order STEP^4 and rounding 1e-16 / STEP
CRITICS: dict[str, Callable[..., Critic]] = {
    "gru": lambda task, rng, **settings: GRUCritic(task, rng, hidden=5, **settings),
    "transformer": lambda task, rng, **settings: TransformerCritic(task, rng, width=4, heads=2, layers=1, **settings),
}
NETS = pytest.mark.parametrize("net", SMALL)


def waves(prompt: Any, tokens: Any) -> Any:
    """A reward that depends on every token and its place."""
    return np.sin(1.0 + prompt + tokens @ np.arange(1.0, 1 + tokens.shape[1]))


def halves(prompt: Any, tokens: Any) -> Any:
    """A process reward at every second token."""
    return np.where(tokens.shape[1] % 2, np.nan, 1.0 * tokens[:, -1])


TASKS = {
    "ragged": TokenTask("ragged", ("a", "b", "."), ("p", "q"), 4, waves, eos=True, steps=halves),
    "full": TokenTask("full", ("a", "b", "c"), ("p", "q", "r"), 3, waves, weights=np.array([0.5, 0.3, 0.2])),
    "one token": TokenTask("one token", ("a", "b", "c"), ("p",), 1, waves),
}
EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


def made(net: str, task: TokenTask, seed: int = 0, **settings: Any) -> NetworkLM:
    """A small network in float64 on the CPU whose policy is far from uniform."""
    start = {"device": "cpu", "dtype": "float64", "head": 2.0} | settings
    return SMALL[net](task, np.random.default_rng([71, seed]), **start)


def drawn(policy: NetworkLM, each: int, seed: int = 0) -> Rollouts:
    """So many answers to every prompt."""
    prompt = policy.asarray(np.repeat(np.arange(policy.task.K), each))
    return sample(policy, prompt, prompt, np.random.default_rng([72, seed]))


def exact(policy: NetworkLM) -> tuple[Any, Any]:
    """J, and its gradient in the parameters."""
    z, pull = policy.logits()
    x = recursion.evaluate(policy.tree, recursion.log_softmax(z))
    return x.J.item(), pull(x.slope)


def far(x: Any, y: Any) -> float:
    """The largest difference."""
    return float(abs(x - y).max())


def slopes(x: Any, seed: int = 0) -> Any:
    """Random numbers of the shape of x."""
    return torch.as_tensor(np.random.default_rng([73, seed]).normal(size=tuple(x.shape))).to(x)


# ---- the equations ----


def sequences(task: TokenTask, B: int) -> Rollouts:
    """Random tokens, EOS among them, as if sequences went on behind it."""
    rng = np.random.default_rng(74)
    prompt = torch.as_tensor(rng.integers(task.K, size=B))
    tokens = torch.as_tensor(rng.integers(task.V, size=(B, task.length)))
    none = torch.zeros(B, task.length, dtype=torch.int64)
    return Rollouts(prompt, tokens, none, none, prompt, prompt, none, none, prompt, none)


def judged(policy: NetworkLM, x: Rollouts, layers: Any, features: Any, names: list[str]) -> None:
    """Logits and gradients of a policy are those of torch's layers, whose parameters are named in our order."""
    p = policy.parameters.named
    expected = features @ p["head"].detach() + p["head bias"].detach()
    features_of = policy.body.sequences(p, x.prompt, x.tokens)
    found = features_of @ p["head"] + p["head bias"]
    assert far(found.detach(), expected.detach()) <= 1e-12
    s = slopes(found)
    of = dict(layers.named_parameters())
    there = torch.autograd.grad(expected, [of[name] for name in names if name], s)
    here = torch.autograd.grad(found, [x for x, name in zip(p.values(), names, strict=False) if name], s)
    for a, b in zip(here, there, strict=True):
        assert far(a, b if a.shape == b.shape else b.T) <= 1e-12 * max(1.0, far(b, 0 * b))


@EVERY
def test_gru_is_the_one_of_torch(task: TokenTask) -> None:
    policy = made("gru", task)
    policy.theta = policy.theta + 0.3 * slopes(policy.theta)  # biases that are not 0
    p = policy.parameters.named
    layer = torch.nn.GRU(task.V, policy.body.width, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(p["token"].T)
        layer.weight_hh_l0.copy_(p["hidden"].T)
        layer.bias_ih_l0.zero_()
        layer.bias_hh_l0.copy_(p["bias"])
    x = sequences(task, 20)
    h0 = p["prompt"].detach()[x.prompt]
    given = torch.nn.functional.one_hot(x.tokens, task.V).double()
    after = layer(given, h0[None])[0]
    features = torch.cat([h0[:, None], after[:, :-1]], 1)
    if task.length > 1:
        judged(policy, x, layer, features, ["", "weight_ih_l0", "weight_hh_l0", "bias_hh_l0"])
    else:
        assert far(policy.body.sequences(p, x.prompt, x.tokens).detach(), features.detach()) <= 1e-12


def encoder(policy: NetworkLM) -> tuple[Any, list[str]]:
    """Torch's encoder with a policy's parameters, and its names for them in our order."""
    body: Any = policy.body
    layer = torch.nn.TransformerEncoderLayer(
        body.width, body.heads, 4 * body.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    final = torch.nn.LayerNorm(body.width)
    stack = torch.nn.TransformerEncoder(layer, body.layers, norm=final, enable_nested_tensor=False).double()
    parts = {
        "attention norm": "norm1", "mlp norm": "norm2", "qkv": "self_attn.in_proj_", "mix": "self_attn.out_proj",
        "up": "linear1", "down": "linear2",
    }  # fmt: skip
    names = []
    for name in policy.parameters.named:
        number, _, rest = name.partition(" ")
        part, _, kind = rest.rpartition(" ")
        inside = f"layers.{number}.{parts[part]}." if part else "norm."
        names.append(f"{inside}{kind or rest}".replace("_.", "_") if name[0].isdigit() or number == "norm" else "")
    of = dict(stack.named_parameters())
    with torch.no_grad():
        for name, x in zip(names, policy.parameters.named.values(), strict=True):
            if name:
                of.pop(name).copy_(x)
    assert not of
    return stack, names


@EVERY
def test_transformer_is_the_one_of_torch(task: TokenTask) -> None:
    policy = made("transformer", task)
    policy.theta = policy.theta + 0.3 * slopes(policy.theta)  # biases that are not 0, scales that are not 1
    stack, names = encoder(policy)
    x, p = sequences(task, 20), policy.parameters.named
    given = torch.cat([p["prompt"].detach()[x.prompt][:, None], p["token"].detach()[x.tokens[:, :-1]]], 1)
    future = torch.ones(task.length, task.length, dtype=torch.bool).triu(1)
    features = stack(given + p["position"].detach(), mask=future)
    judged(policy, x, stack, features, names)


# ---- one policy, seen in four ways ----


@NETS
@EVERY
def test_all_prefixes_sequences_and_sampling_give_the_same_logits(net: str, task: TokenTask) -> None:
    policy = made(net, task)
    z, _ = policy.logits()
    assert z.shape == (task.N, task.V)
    assert policy.fewer(task.N) and not policy.fewer(task.N - 1)
    for t in range(task.length):
        prompt, tokens = prefixes(task.K, task.C, t)
        for i in {0, 1, 2, len(prompt) // 2, len(prompt) - 1} & set(range(len(prompt))):
            found, state, row = *policy.begin(policy.asarray(prompt[i : i + 1])), prompt[i]
            assert (state[0] is None) == (task.length > 1)  # one sequence: by the memory of the body, not by the table
            for s in range(t):
                row = task.tree.start[s + 1] + (row - task.tree.start[s]) * task.C + tokens[i, s]
                found, state = policy.advance(state, policy.asarray(tokens[i : i + 1, s]), policy.asarray([row]))
            assert row == task.tree.start[t] + i
            assert far(found[0], z[row]) <= 1e-12
    few, many = drawn(policy, 1), drawn(policy, 50)
    assert policy.fewer(few.row.numel()) == (task.length == 1)
    assert policy.fewer(many.row.numel())
    for x in (few, many):
        assert far(policy.rows(x)[0] * x.mask[..., None], z[x.row] * x.mask[..., None]) <= 1e-12


@NETS
def test_sampling_by_the_memory_is_sampling_by_the_table(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made(net, TASKS["ragged"])
    x = drawn(policy, 100)
    monkeypatch.setattr(NetworkLM, "fewer", lambda policy, tokens: False)
    y = drawn(policy, 100)
    assert torch.equal(x.tokens, y.tokens)
    assert torch.equal(x.row, y.row)
    assert far(x.logp, y.logp) <= 1e-12


@NETS
def test_pull_along_sequences_is_pull_of_all_prefixes(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made(net, TASKS["ragged"])
    x = drawn(policy, 40)
    z, pull = policy.rows(x)
    s = slopes(z) * x.mask[..., None]
    g = pull(s)
    monkeypatch.setattr(NetworkLM, "fewer", lambda policy, tokens: False)
    z2, pull = policy.rows(x)
    assert far(z * x.mask[..., None], z2 * x.mask[..., None]) <= 1e-12
    assert far(pull(s), g) <= 1e-12 * float(abs(g).max())


# ---- gradients ----


def agrees_with_differences(policy: Any, g: Any, f: Callable[[], float]) -> None:
    """A gradient of f, along a random direction in each of the named parts, and in all: five points, 1e-7."""
    theta, rng, start = policy.theta, np.random.default_rng(75), 0
    sizes = [x.numel() for x in policy.parameters.named.values()]
    for size in [*sizes, len(theta)]:
        u = torch.zeros_like(theta)
        start = start if start < len(theta) else 0
        u[start : start + size] = torch.as_tensor(rng.normal(size=size))
        start += size

        def at(x: float, u: Any = u) -> float:
            policy.theta = theta + x * u
            return f()

        near, further = at(STEP) - at(-STEP), at(2 * STEP) - at(-2 * STEP)
        expected = (8 * near - further) / (12 * STEP)
        assert abs((g @ u).item() - expected) <= 1e-7 * max(abs(expected), float(g.norm() * u.norm()) / len(u) ** 0.5)
    policy.theta = theta


@NETS
@EVERY
def test_exact_gradient_is_that_of_differences(net: str, task: TokenTask) -> None:
    policy = made(net, task)
    _, g = exact(policy)
    assert g.shape == policy.theta.shape
    agrees_with_differences(policy, g, lambda: exact(policy)[0])


@NETS
def test_gradient_of_a_batch_is_that_of_differences(net: str) -> None:
    policy = made(net, TASKS["ragged"])
    x = drawn(policy, 1)
    s = slopes(policy.rows(x)[0])
    _, pull = policy.rows(x)
    g = pull(s)
    agrees_with_differences(policy, g, lambda: (policy.rows(x)[0] * s).sum().item())


@NETS
def test_pull_asks_for_no_gradients_and_leaves_no_graph(net: str) -> None:
    policy, alive = made(net, TASKS["ragged"]), weakref.WeakSet[Any]()

    class Kept:
        def __init__(self, x: Any) -> None:
            self.x = x.detach()
            alive.add(self)

    x = drawn(policy, 2)
    with torch.no_grad():
        expected = exact(policy)[1]
    assert far(exact(policy)[1], expected) == 0
    for forward in (policy.logits, lambda: policy.rows(x), lambda: policy.rows(drawn(policy, 50))):
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
            z, pull = forward()
            assert not z.requires_grad
            assert len(alive) > 0
            g = pull(slopes(z))
        assert len(alive) == 0
        assert not g.requires_grad
        with pytest.raises(RuntimeError, match="second time"):
            pull(slopes(z))
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
            z, pull = forward()
        assert len(alive) > 0
        del pull
        assert len(alive) == 0


@NETS
def test_sampling_keeps_nothing_for_gradients(net: str) -> None:
    policy = made(net, TASKS["ragged"])
    kept: list[Any] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        x = drawn(policy, 1)
        drawn(policy, 50)
    assert not kept
    assert not any(y.requires_grad for y in x)
    with torch.inference_mode():
        z, _ = policy.logits()
        assert torch.equal(drawn(policy, 1).tokens, x.tokens)
    assert far(z, policy.logits()[0]) == 0


# ---- parameters ----


@NETS
def test_seed_device_and_precision(net: str) -> None:
    task = TASKS["ragged"]
    a, b, c = made(net, task), made(net, task), made(net, task, seed=1)
    assert torch.equal(a.theta, b.theta)
    assert not torch.equal(a.theta, c.theta)
    single = made(net, task, dtype=torch.float32)
    assert single.theta.dtype == single.tree.reward.dtype == single.logits()[0].dtype == torch.float32
    assert torch.equal(single.theta, a.theta.float())
    assert far(single.logits()[0].double(), a.logits()[0]) <= 1e-5
    J, g = exact(a)
    J32, g32 = exact(single)
    assert abs(J32 - J) <= 1e-5
    assert far(g32.double(), g) <= 1e-5
    assert drawn(single, 5).logp.dtype == torch.float32


@NETS
def test_first_policy_is_close_to_uniform(net: str) -> None:
    policy = SMALL[net](TASKS["full"], np.random.default_rng(0), device="cpu", dtype="float64")
    p = recursion.log_softmax(policy.logits()[0]).exp()
    assert 0 < far(p, torch.full_like(p, 1 / 3)) < 0.02


@NETS
def test_theta_is_one_vector(net: str) -> None:
    policy = made(net, TASKS["ragged"])
    theta, z = policy.theta, policy.logits()[0]
    twin = policy.copy()
    assert theta.shape == (sum(x.numel() for x in policy.parameters.named.values()),)
    policy.theta = 2 * theta
    assert torch.equal(policy.theta, 2 * theta)
    assert torch.equal(twin.theta, theta)  # what was read or copied before has not moved
    assert all(x.data_ptr() >= policy.parameters.flat.data_ptr() for x in policy.parameters.named.values())
    assert far(policy.logits()[0], z) > 1e-3
    policy.theta = theta.numpy()
    assert torch.equal(policy.logits()[0], z)
    assert torch.equal(twin.logits()[0], z)
    with pytest.raises(ShapeError, match=rf"^theta has shape \(3,\); \(n,\) = \({len(theta)},\) is expected$"):
        policy.theta = theta[:3]
    assert torch.equal(copy.deepcopy(policy).theta, theta)


@NETS
def test_parameters_must_not_move_before_the_gradient_is_pulled(net: str) -> None:
    policy = made(net, TASKS["ragged"])
    z, pull = policy.logits()
    policy.theta = policy.theta + 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pull(z)


def test_refusals() -> None:
    task, rng = TASKS["full"], np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^dtype is 'float16'; one of float32, float64 is expected$"):
        GRU(task, rng, dtype="float16")
    with pytest.raises(ValueError, match=r"^device is 'gpu'; one of auto, cpu"):
        GRU(task, rng, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^device is 'cuda'; one of auto, cpu is expected$"):
            GRU(task, rng, device="cuda")
    with pytest.raises(ValueError, match=r"^width is 9; a multiple of heads = 2 is expected$"):
        Transformer(task, rng, width=9)
    for sizes in ({"width": 0}, {"heads": 0}, {"layers": -1}):
        with pytest.raises(ValueError, match=rf"^{next(iter(sizes))} is {next(iter(sizes.values()))}; 1 or more"):
            Transformer(task, rng, **sizes)
    with pytest.raises(ValueError, match=r"^hidden is 0; 1 or more are expected$"):
        GRU(task, rng, hidden=0)
    with pytest.raises(ModelError, match="prefixes"):
        GRU(TokenTask("long", ("a", "b"), ("p",), 40, waves), rng)


def test_asarray() -> None:
    policy = made("gru", TASKS["full"], dtype="float32")
    plain = np.ones(3)
    x = policy.asarray(plain)
    plain[0] = 9
    assert x.tolist() == [1, 1, 1]
    assert (x.dtype, policy.asarray(np.arange(2)).dtype) == (torch.float32, torch.int64)
    assert policy.asarray(np.array([True])).dtype == torch.bool
    assert policy.asarray(x.double()).dtype == torch.float32
    assert policy.asarray([1.5, 2]).tolist() == [1.5, 2.0]


# ---- the recursion and sampling, in torch ----


@NETS
@EVERY
def test_recursion_in_torch_is_the_one_in_numpy(net: str, task: TokenTask) -> None:
    policy = made(net, task)
    z, _ = policy.logits()
    table = TableLM(task, z.numpy())
    logp = recursion.log_softmax(z)
    x, y = (recursion.evaluate(p.tree, recursion.log_softmax(p.logits()[0])) for p in (policy, table))
    for a, b in zip((*x, x.slope), (*y, y.slope), strict=True):
        assert far(np.asarray(a), b) <= 1e-12
    u = slopes(z)
    there = recursion.curvature(task.tree, logp.numpy(), u.numpy())
    assert far(recursion.curvature(policy.tree, logp, u).numpy(), there) <= 1e-12


@NETS
def test_table_and_network_draw_the_same(net: str) -> None:
    policy = made(net, TASKS["ragged"])
    table = TableLM(policy.task, policy.logits()[0].numpy())
    x = drawn(policy, 200)
    u = policy.uniforms(np.random.default_rng([72, 0]), (policy.task.length, len(x.prompt))).numpy()

    class Same(TableLM):
        def uniforms(self, rng: Any, shape: Any) -> Any:
            return u

    y = sample(Same(table.task, table.theta), x.prompt.numpy(), x.group.numpy(), np.random.default_rng())
    for name, a, b in zip(x._fields, x, y, strict=True):
        assert far(np.asarray(a, float), np.asarray(b, float)) <= (1e-12 if name == "logp" else 0), name
    s = slopes(x.row[..., None].expand(-1, -1, policy.task.V).double()).numpy()
    g = table.rows(y)[1](s)
    found = policy.rows(x)[1](torch.as_tensor(s))
    assert far(found, policy.logits()[1](torch.as_tensor(g).view(policy.tree.N, -1))) <= 1e-12 * float(abs(found).max())


def test_uniforms() -> None:
    policy = made("gru", TASKS["full"], dtype="float32")
    u = policy.uniforms(np.random.default_rng(3), (50, 40))
    assert torch.equal(u, policy.uniforms(np.random.default_rng(3), (50, 40)))
    assert not torch.equal(u, policy.uniforms(np.random.default_rng(4), (50, 40)))
    assert (u.shape, u.dtype) == ((50, 40), torch.float32)
    assert 0 <= float(u.min()) < 0.05
    assert 0.95 < float(u.max()) < 1
    rng = np.random.default_rng(3)
    assert not torch.equal(policy.uniforms(rng, (9,)), policy.uniforms(rng, (9,)))


@NETS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_have_the_exact_means(net: str, dtype: str) -> None:
    """The reward of each prompt and how often each prefix occurs: 4 x 32 numbers, each at |z| <= 6.8."""
    policy = made(net, TASKS["ragged"], dtype=dtype)
    tree, n = policy.tree, 20_000
    x = drawn(policy, n)
    e = recursion.evaluate(tree, recursion.log_softmax(policy.logits()[0]))
    second = recursion.evaluate(tree, recursion.log_softmax(policy.logits()[0]), tree.reward**2).V
    for k in range(2):
        mean, var = e.V[k].item(), (second[k] - e.V[k] ** 2).item()
        assert abs(x.reward[x.prompt == k].double().mean().item() - mean) <= Z * (var / n) ** 0.5
    d = (e.d * 2).double()  # of each prompt
    count = torch.bincount(x.row[x.mask > 0], minlength=tree.N).double()
    assert bool((abs(count / n - d) <= Z * (d * (1 - d) / n) ** 0.5 + 1e-6).all())  # and float32
    assert torch.equal(x.truncated, (x.mask.sum(1) == tree.L) & (x.tokens[:, -1] < tree.C))


# ---- critics ----


@pytest.mark.parametrize("net", CRITICS)
def test_critics(net: str) -> None:
    task = TASKS["ragged"]
    critic = CRITICS[net](task, np.random.default_rng(0), device="cpu", dtype="float64", head=1.0)
    v, pull = critic.all()
    assert v.shape == (task.N,)
    s = slopes(v)
    agrees_with_differences(critic, pull(s), lambda: (critic.all()[0] * s).sum().item())
    policy = made(net, task)
    for x in (drawn(policy, 1), drawn(policy, 50)):
        along, pull = critic.values(x)
        assert far(along * x.mask, v[x.row] * x.mask) <= 1e-12
        s = slopes(along) * x.mask
        of_rows = torch.zeros(task.N, dtype=torch.float64).index_add_(0, x.row.ravel(), s.ravel())
        g = critic.all()[1](of_rows)
        assert far(pull(s), g) <= 1e-12 * float(abs(g).max())


def test_table_critic() -> None:
    task, policy = TASKS["ragged"], TableLM(TASKS["ragged"])
    prompt = np.repeat(np.arange(task.K), 30)
    x = sample(policy, prompt, prompt, np.random.default_rng(0))
    critic = TableCritic(task, np.arange(task.N))
    assert np.array_equal(critic.values(x)[0], x.row)
    s = np.random.default_rng(1).normal(size=x.row.shape)
    expected = np.zeros(task.N)
    np.add.at(expected, x.row, s)
    assert far(critic.values(x)[1](s), expected) <= 1e-12
    assert np.array_equal(critic.all()[0], np.arange(task.N))
    with pytest.raises(ShapeError, match="theta"):
        TableCritic(task, [1.0])


@pytest.mark.parametrize("net", CRITICS)
def test_critics_learn_the_exact_values(net: str) -> None:
    task = TASKS["full"]
    critic, step = CRITICS[net](task, np.random.default_rng(0), device="cpu"), adam(0.02)
    target = recursion.evaluate(task.tree, recursion.log_softmax(TableLM(task).logits()[0])).V
    goal = critic.asarray(target)
    before = far(critic.all()[0], goal)
    for _ in range(200):
        v, pull = critic.all()
        critic.theta = step(critic.theta, pull(goal - v))
    assert far(critic.all()[0], goal) < 0.05 < before


# ---- learning, devices, what is not installed ----


@NETS
def test_exact_gradients_solve_a_task(net: str) -> None:
    def same(prompt: Any, tokens: Any) -> Any:
        return 1.0 * (tokens == np.stack([prompt, 3 - prompt], 1)).all(1)

    task = TokenTask("pairs", tuple("abcd"), tuple("pqrs"), 2, same)
    policy, step = SMALL[net](task, np.random.default_rng(0), device="cpu"), adam(0.03)
    assert abs(exact(policy)[0] - 1 / 16) < 0.01
    for _ in range(150):
        policy.theta = step(policy.theta, exact(policy)[1])
    assert exact(policy)[0] > 0.95


@NETS
def test_same_losses_on_cuda(net: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    task = TASKS["ragged"]
    here, there = made(net, task, dtype="float32"), made(net, task, dtype="float32", device="auto")
    assert there.device.type == there.tree.reward.device.type == "cuda"
    assert torch.equal(here.theta, there.theta.cpu())
    x = drawn(here, 50)
    y = Rollouts(*(there.asarray(part) for part in x))
    s = slopes(here.rows(x)[0])
    assert far(here.rows(x)[0], there.rows(y)[0].cpu()) <= 1e-5
    g = here.rows(x)[1](s)
    assert far(g, there.rows(y)[1](there.asarray(s)).cpu()) <= 1e-5 * float(abs(g).max())
    assert abs(exact(here)[0] - exact(there)[0]) <= 1e-5
    assert drawn(there, 50).tokens.device.type == "cuda"


def test_torch_is_named_where_it_is_missing() -> None:
    code = """
import sys
sys.modules["torch"] = None
import tabrl.tokens.exact, tabrl.tokens.table
from tabrl.errors import MissingExtra
try:
    import tabrl.tokens.nets
except MissingExtra as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == 'torch is not installed; a network needs it; run: pip install "tabrl[torch]"\n'
