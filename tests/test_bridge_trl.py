"""TRL beside ours: its trainer on one of our tasks, and its loss on our numbers. Needs the extra `bench`; offline."""

import ast
import importlib.util
import os
import re
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabrl.advantages import group_advantages
from tabrl.divergences import entropy as row_entropy
from tabrl.divergences import kl_estimate
from tabrl.envs import token_tasks
from tabrl.losses import aggregate, d_aggregate, d_kl_estimate, d_ppo_clip, ppo_clip
from tabrl.tokens import bridge, engines
from tabrl.tokens.credit import overlong_penalty
from tabrl.tokens.surrogates import cispo, d_cispo, d_gspo, d_weighted_kl, gspo, weighted_kl
from tabrl.tokens.task import TokenTask

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    WHY = "TRL is not installed: pip install -e '.[bench]'"
    trl: Any = pytest.importorskip("trl", reason=WHY)
    torch: Any = pytest.importorskip("torch", reason=WHY)
    datasets: Any = pytest.importorskip("datasets", reason=WHY)
    tokenizers: Any = pytest.importorskip("tokenizers", reason=WHY)
    transformers: Any = pytest.importorskip("transformers", reason=WHY)

pytestmark = pytest.mark.filterwarnings("ignore")  # those of TRL, transformers and accelerate

G, K, T, V = 4, 3, 5, 7
HOW = {"grpo": "sequence", "dapo": "token", "bnpo": "token", "dr_grpo": "constant"}
LOW, HIGH, BETA = 0.2, 0.28, 0.3


def words_of(task: TokenTask) -> Any:
    """A tokenizer of whole words, those of the prompts included."""
    words = [
        *task.vocab,
        *sorted({w for text in task.prompts for w in text.split()} - set(task.vocab)),
        "<pad>",
        "<end>",
    ]
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "eos_token": task.vocab[-1] if task.eos else "<end>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **special)


def trainer(task: TokenTask, folder: Path, reward: Any = None, **settings: Any) -> Any:
    """TRL's trainer of a random Llama of a few thousand parameters; each batch is every prompt once."""
    words = words_of(task)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")  # where TRL finds the reference model, if it wants one
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    plain: dict[str, Any] = {
        "per_device_train_batch_size": task.K * G, "num_generations": G, "max_completion_length": task.length,
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
        "logging_strategy": "no", "save_strategy": "no", "shuffle_dataset": False, "seed": 0,
        "generation_kwargs": {"suppress_tokens": words.convert_tokens_to_ids(["<pad>", "<end>"])},
    }  # fmt: skip
    return trl.GRPOTrainer(
        model=model,
        reward_funcs=reward or bridge.reward_function(task),
        args=trl.GRPOConfig(str(folder), **{**plain, **settings}),
        train_dataset=datasets.Dataset.from_list(bridge.prompt_set(task)),
        processing_class=words,
    )


# ---- the trainer on our tasks ----


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        (token_tasks.copy(vocab=3, prompts=4), {}),
        (token_tasks.parity(2, length=4), {"beta": 0.04, "loss_type": "dr_grpo", "scale_rewards": "none"}),
        (token_tasks.reverse(1, vocab=4, prompts=4), {"loss_type": "grpo", "num_iterations": 2, "epsilon_high": 0.28}),
    ],
    ids=lambda x: x.name if isinstance(x, TokenTask) else "",
)
def test_trl_trains_on_our_task_offline(task: TokenTask, settings: dict[str, Any], tmp_path: Path) -> None:
    """Six updates; the rewards that TRL sees are those of our tree, and the model moves."""
    seen, verifier = [], bridge.reward_function(task)

    def reward(**columns: Any) -> list[float]:
        seen.append((columns, verifier(**columns)))
        return seen[-1][1]

    it = trainer(task, tmp_path, reward, max_steps=6, learning_rate=1e-2, **settings)
    before = torch.cat([p.detach().flatten().clone() for p in it.model.parameters()])
    it.train()
    after = torch.cat([p.detach().flatten() for p in it.model.parameters()])
    assert it.state.global_step == 6
    assert torch.isfinite(after).all()
    assert (after != before).any()
    assert len(seen) == 6 // settings.get("num_iterations", 1)
    for columns, found in seen:
        assert len(found) == task.K * G
        assert sorted(columns["prompts"]) == sorted([*task.prompts] * G)
        for prompt, tokens, r in zip(columns["prompts"], columns["completion_ids"], found, strict=True):
            assert r == paid(task, task.prompts.index(prompt), [int(a) for a in tokens])
    assert any(max(found) > min(found) for _, found in seen)


def paid(task: TokenTask, row: int, tokens: list[int]) -> float:
    """What the tree pays for a finished sequence; 0 where a token is none of the task's, but a word of a prompt."""
    if max(tokens) >= task.V:
        return 0.0
    tree = task.tree
    for t, a in enumerate(tokens[:-1]):
        row = tree.start[t + 1] + (row - tree.start[t]) * tree.C + a
    assert tree.ends[row, tokens[-1]]
    return float(tree.reward[row, tokens[-1]])


# ---- the loss on our numbers ----


class Numbers:
    """A batch of sequences of ragged lengths, with what TRL's loss asks for and what ours does."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        B = K * G
        length = rng.integers(1, T + 1, B)
        length[rng.integers(B)] = T
        self.mask = torch.as_tensor((np.arange(T) < length[:, None]) * 1)
        self.logp = torch.as_tensor(rng.normal(-1.5, 0.5, (B, T)))
        self.old = self.logp + torch.as_tensor(rng.normal(0.0, 0.4, (B, T)))
        self.ref = self.logp + torch.as_tensor(rng.normal(0.0, 0.7, (B, T)))
        self.rows = torch.log_softmax(torch.as_tensor(rng.normal(0.0, 1.0, (B, T, V))), -1)
        self.reward = torch.as_tensor(rng.normal(0.0, 1.0, B))
        self.group = torch.as_tensor(np.repeat(np.arange(K), G))
        self.adv = group_advantages(self.reward, self.group)

    @property
    def along(self) -> Any:
        """Advantages of tokens (B,T)."""
        return self.adv[:, None].expand(-1, T).contiguous()


def their_loss(it: Any, x: Numbers) -> tuple[float, Any]:
    """What TRL's loss makes of the numbers, and autograd's derivative with respect to logp; in float64."""
    logp = x.logp.clone().requires_grad_()
    entropies = row_entropy(x.rows)

    def forward(self: Any, *ignored: Any, **also: Any) -> Any:
        return logp, entropies, None

    it._get_per_token_logps_and_entropies = types.MethodType(forward, it)
    it.current_gradient_accumulation_steps = 1
    it.model.train()
    inputs = {
        "prompt_ids": torch.zeros(K * G, 2).long(), "prompt_mask": torch.ones(K * G, 2).long(),
        "completion_ids": torch.zeros(K * G, T).long(), "completion_mask": x.mask, "advantages": x.adv,
        "old_per_token_logps": x.old, "ref_per_token_logps": x.ref, "num_items_in_batch": x.mask.sum(),
    }  # fmt: skip
    loss = it._compute_loss(it.model, inputs)
    assert loss.dtype == torch.float64
    (slope,) = torch.autograd.grad(loss, logp)
    return loss.item(), slope


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that makes a trainer for a setting, each once."""
    kept: dict[str, Any] = {}

    def make(**settings: Any) -> Any:
        if str(settings) not in kept:
            task = token_tasks.copy(T, vocab=V, prompts=K)
            kept[str(settings)] = trainer(task, tmp_path_factory.mktemp("trl"), **settings)
        return kept[str(settings)]

    return make


def same(theirs: tuple[float, Any], value: Any, slope: Any) -> None:
    """TRL's number and derivative are ours, in float64."""
    assert abs(theirs[0] - value.item()) <= 1e-12 * max(1.0, abs(theirs[0]))
    assert float(abs(theirs[1] - slope).max()) <= 1e-12


@pytest.mark.parametrize("loss_type", HOW)
@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("weighted", [False, True])
def test_clip_and_kl_are_ours(made: Any, loss_type: str, beta: float, weighted: bool) -> None:
    """Clip-higher and k3, with and without the ratio before it, in each aggregation; value and derivative."""
    it = made(loss_type=loss_type, epsilon=LOW, epsilon_high=HIGH, beta=beta, use_bias_correction_kl=weighted)
    how: dict[str, Any] = {"how": HOW[loss_type], "length": T}
    clipped = 0
    for seed in range(20):
        x = Numbers(seed)
        loss = ppo_clip(x.logp, x.old, x.along, low=LOW, high=HIGH)
        slope = d_ppo_clip(x.logp, x.old, x.along, low=LOW, high=HIGH)
        clipped += int((slope == 0).sum())
        if weighted:
            loss = loss + beta * weighted_kl(x.logp, x.old, x.ref)
            slope = slope + beta * d_weighted_kl(x.logp, x.old, x.ref)
        else:
            loss = loss + beta * kl_estimate(x.logp, x.ref)
            slope = slope + beta * d_kl_estimate(x.logp, x.ref)
        same(their_loss(it, x), aggregate(loss, x.mask * 1.0, **how), slope * d_aggregate(loss, x.mask * 1.0, **how))
    assert clipped > 100


def test_dual_clip_is_ours(made: Any) -> None:
    it = made(loss_type="grpo", epsilon=LOW, epsilon_high=HIGH, delta=1.5)
    for seed in range(20):
        x = Numbers(seed)
        loss = ppo_clip(x.logp, x.old, x.along, low=LOW, high=HIGH, dual=1.5)
        slope = d_ppo_clip(x.logp, x.old, x.along, low=LOW, high=HIGH, dual=1.5)
        w = d_aggregate(loss, x.mask * 1.0, how="sequence")
        same(their_loss(it, x), aggregate(loss, x.mask * 1.0, how="sequence"), slope * w)


def test_dual_clip_below_the_clip_is_another(made: Any) -> None:
    """What the table says of delta < 1 + epsilon_high: it bounds positive advantages too."""
    it = made(loss_type="grpo", epsilon=LOW, epsilon_high=1.0, delta=1.1)
    x = Numbers(0)
    ours = aggregate(ppo_clip(x.logp, x.old, x.along, low=LOW, high=1.0, dual=1.1), x.mask * 1.0, how="sequence")
    assert abs(their_loss(it, x)[0] - ours.item()) > 1e-3


def test_gspo_is_ours(made: Any) -> None:
    """The value token by token; the derivative of a sequence, which is spread over its tokens alike."""
    it = made(loss_type="grpo", importance_sampling_level="sequence", epsilon=0.1, epsilon_high=0.15)
    for seed in range(20):
        x = Numbers(seed)
        loss = gspo(x.logp, x.old, x.along, x.mask, low=0.1, high=0.15)
        slope = d_gspo(x.logp, x.old, x.along, x.mask, low=0.1, high=0.15)
        w = d_aggregate(loss, x.mask * 1.0, how="sequence")
        same(their_loss(it, x), aggregate(loss, x.mask * 1.0, how="sequence"), slope * w)


def test_cispo_is_ours(made: Any) -> None:
    it = made(loss_type="cispo", epsilon_high=1.4)  # TRL's cap is 1.4, which ours calls 0.4 above 1
    for seed in range(20):
        x = Numbers(seed)
        loss, slope = cispo(x.logp, x.old, x.along, high=0.4), d_cispo(x.logp, x.old, x.along, high=0.4)
        w = d_aggregate(loss, x.mask * 1.0, how="token")
        same(their_loss(it, x), aggregate(loss, x.mask * 1.0, how="token"), slope * w)


def test_entropy_bonus_is_the_mean_over_the_tokens(made: Any) -> None:
    """Whatever the aggregation is: ours goes with it, and is the same for "token" alone."""
    for loss_type, equal in (("dapo", True), ("grpo", False)):
        x = Numbers(1)
        with_bonus = their_loss(made(loss_type=loss_type, entropy_coef=0.25), x)[0]
        bonus = their_loss(made(loss_type=loss_type), x)[0] - with_bonus
        assert abs(bonus - 0.25 * aggregate(row_entropy(x.rows), x.mask * 1.0, how="token").item()) < 1e-12
        ours = 0.25 * aggregate(row_entropy(x.rows), x.mask * 1.0, how=HOW[loss_type]).item()
        assert (abs(bonus - ours) < 1e-12) == equal


def test_a_sequence_that_is_all_masked_counts(made: Any) -> None:
    """As for TRL with mask_truncated_completions: it stays in the mean over sequences, with 0."""
    for loss_type in HOW:
        x = Numbers(2)
        x.mask[3] = 0
        loss = ppo_clip(x.logp, x.old, x.along, low=LOW, high=HIGH)
        theirs = their_loss(made(loss_type=loss_type, epsilon=LOW, epsilon_high=HIGH), x)
        assert abs(theirs[0] - aggregate(loss, x.mask * 1.0, how=HOW[loss_type], length=T).item()) < 1e-12


@pytest.mark.parametrize(("scale", "std"), [("group", "sample"), ("none", "none")])
def test_group_advantages_are_ours(scale: str, std: str, tmp_path: Path) -> None:
    """What TRL computes from rewards on its way to the loss, flat groups included; in its float32."""
    task = token_tasks.copy(vocab=V, prompts=K)
    drawn: list[list[float]] = []

    def reward(prompts: list[str], **columns: Any) -> list[float]:
        r = np.random.default_rng(len(drawn)).integers(0, 3, len(prompts)) / 2
        r[:G] = 0.5
        drawn.append(r.tolist())
        return drawn[-1]

    it = trainer(task, tmp_path, reward, scale_rewards=scale)
    rows = [row for row in bridge.prompt_set(task) for _ in range(G)]
    for _ in range(5):
        found = it._generate_and_score_completions(rows)["advantages"].double()
        ours = group_advantages(
            torch.tensor(drawn[-1]).double(), torch.arange(K).repeat_interleave(G), std=std, eps=1e-4
        )
        assert float(abs(found - ours).max()) < 1e-5
        assert (found[:G] == 0).all()


def test_overlong_shaping_is_ours() -> None:
    rewards: Any = importlib.import_module("trl.rewards")
    theirs = rewards.get_soft_overlong_punishment(10, 4)(completion_ids=[[0] * n for n in range(13)])
    assert np.allclose(theirs, overlong_penalty(np.arange(13), 10, 4), atol=1e-12)


# ---- the table ----


def test_the_table_was_read_from_this_version() -> None:
    assert trl.__version__ == engines.READ["trl"]


@pytest.mark.parametrize("key", bridge.keys_of("trl"))
def test_every_key_is_one_of_grpo_config(key: str, tmp_path: Path) -> None:
    """Each is taken with each of its values, 8 for the letter of a length."""
    for value in bridge.keys_of("trl")[key]:
        given = literal("8" if value == "L" else value)
        size = {"per_device_train_batch_size": 16, "num_generations": 2, "use_cpu": True, "bf16": False, key: given}
        assert getattr(trl.GRPOConfig(str(tmp_path), **size), key) == given


def literal(text: str) -> Any:
    """A number or a truth value where a text reads like one, else the text."""
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def test_every_key_of_verl_is_in_its_files() -> None:
    """Where verl's files are installed; it is not imported, and need not be complete."""
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        pytest.skip("verl is not installed: pip install --no-deps verl")
    yaml: Any = pytest.importorskip("yaml")
    path = Path(found.submodule_search_locations[0]) / "trainer" / "config" / "_generated_ppo_trainer.yaml"
    files = yaml.safe_load(path.read_text(encoding="utf-8"))
    command = (Path(__file__).resolve().parent.parent / "docs" / "engines.md").read_text("utf-8").split("```sh")[1]
    for key in [*bridge.keys_of("verl"), *re.findall(r"([\w.]+)=", command.split("```")[0])]:
        at: Any = files
        if key.startswith("+"):
            continue
        for part in key.split("."):
            assert part in at, f"{key} is not in {path}"
            at = at[part]
