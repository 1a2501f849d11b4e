"""The peer of benchmarks/tokens.py: TRL's GRPOTrainer on one of our token tasks, offline.

    pip install -e ".[bench]"
    python benchmarks/trl_peer.py [seeds]

A tiny random Llama, built here, whose tokens are exactly the task's: a tokenizer of whole words drops the words of a
prompt that are not tokens ("copy: j p" is two tokens), so that nothing is padded and no special token is ever drawn.
One thread, float32; no logs, files, recomputed activations or reference model; a batch is G answers to each prompt.
The time of a step is that from the end of the step before. Success is exact, by our recursion over all prefixes with
their model's logits, and the time that this takes is not counted.

DEFAULTS are the best of what was tried, three seeds each, by the median time to 90 %: widths 32, 64 and 128, rates from
5e-4 to 1e-2, entropy bonus 0 to .1, norm held to 1 or not, Adam's b2 .99. Faster rates, or no bonus, lose prompts.
"""

import dataclasses
import os
import statistics
import sys
import tempfile
import time
import warnings
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import datasets
import numpy as np
import tokenizers
import torch
import transformers
from trl import GRPOConfig, GRPOTrainer

from tabrl.envs import token_tasks
from tabrl.tokens import bridge, recursion
from tabrl.tokens.task import TokenTask
from tabrl.tokens.tree import prefixes

transformers.logging.set_verbosity_error()
DEFAULTS: dict[str, Any] = {"learning_rate": 1e-3, "entropy_coef": 0.03, "max_grad_norm": 1.0}
QUIET: dict[str, Any] = {
    "logging_strategy": "no", "save_strategy": "no", "eval_strategy": "no", "report_to": "none", "disable_tqdm": True,
}  # fmt: skip
PLAIN: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dataloader_num_workers": 0,
    "dataloader_pin_memory": False, "optim": "adamw_torch_fused", "lr_scheduler_type": "constant", "weight_decay": 0.0,
    "shuffle_dataset": False, "beta": 0.0, "loss_type": "grpo",
}  # fmt: skip


class Run(NamedTuple):
    """What one training took and reached."""

    seconds: list[float]  # of each step: drawing, rewards, update
    success: list[float]  # exact J of the task after each step
    tokens: int  # drawn in a step

    @property
    def rate(self) -> float:
        """Drawn tokens per second of a step, median over the steps."""
        return self.tokens / statistics.median(self.seconds)

    def steps_to(self, success: float = 0.9) -> float:
        """The first step after which the task was solved so well; inf if there was none."""
        return next((k for k, p in enumerate(self.success, 1) if p >= success), float("inf"))

    def seconds_to(self, success: float = 0.9) -> float:
        """Seconds until then."""
        steps = self.steps_to(success)
        return sum(self.seconds[: int(steps)]) if np.isfinite(steps) else float("inf")


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Take the times, look at the success off the clock, stop when it is enough."""

    def __init__(self, task: TokenTask, prompts: torch.Tensor, enough: float) -> None:
        self.task, self.prompts, self.enough = task, prompts, enough
        self.start: float | None = None
        self.seconds: list[float] = []
        self.success: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Start the clock, once."""
        self.start = time.perf_counter() if self.start is None else self.start

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Stop the clock, look, start it again."""
        self.seconds.append(time.perf_counter() - (self.start or 0.0))
        self.success.append(exact_success(others["model"], self.task, self.prompts))
        control.should_training_stop = self.success[-1] >= self.enough
        self.start = time.perf_counter()


def train(
    task: TokenTask, seed: int, *, pays: TokenTask | None = None, G: int = 16, steps: int = 400, enough: float = 0.9,
    hidden: int = 64, **settings: Any,
) -> Run:  # fmt: skip
    """Train until the success is `enough`, or for so many steps.

    pays: the task whose verifier rewards the training, `task` itself unless given. settings: of GRPOConfig, instead of
    DEFAULTS.
    """
    words = word_tokenizer(task)
    prompts = torch.tensor(words(list(task.prompts))["input_ids"])
    watch = Watch(task, prompts, enough)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = GRPOConfig(
            folder, per_device_train_batch_size=task.K * G, num_generations=G, max_completion_length=task.length,
            max_steps=steps, seed=seed, **{**DEFAULTS, **QUIET, **PLAIN, **settings},
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=tiny_llama(task.V, prompts.shape[1] + task.length, hidden, seed),
            reward_funcs=bridge.reward_function(pays or task),
            args=config,
            train_dataset=datasets.Dataset.from_list(bridge.prompt_set(task) * steps),
            processing_class=words,
            callbacks=[watch],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return Run(watch.seconds, watch.success, task.K * G * task.length)


def tiny_llama(V: int, longest: int, hidden: int, seed: int) -> Any:
    """Two layers with random weights; the tokens are the task's."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=V, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=longest, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def word_tokenizer(task: TokenTask) -> Any:
    """Words to the task's numbers of tokens; pad and end behind them are never used. ValueError where they would be."""
    spare = {"<pad>": task.V, "<end>": task.V + 1}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(task.vocab)} | spare))
    others = {word for text in task.prompts for word in text.split()} - set(task.vocab)
    inner.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Replace(w, "") for w in sorted(others)])
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )
    if task.eos or len({len(x) for x in words(list(task.prompts))["input_ids"]}) != 1:
        raise ValueError(f"task is {task!r}; one without EOS whose prompts have equally many tokens is expected")
    return words


def exact_success(model: Any, task: TokenTask, prompts: torch.Tensor) -> float:
    """J of their model: the logits of all prefixes, in the order of our tree, and our recursion."""
    tree = task.tree
    prompt, tokens = prefixes(tree.K, tree.C, tree.L - 1)
    ids = torch.cat([prompts[prompt], torch.as_tensor(tokens)], 1)
    with torch.no_grad():
        out = model(input_ids=ids).logits[:, prompts.shape[1] - 1 :].double().numpy()
    logits = np.concatenate([out[:: tree.C ** (tree.L - 1 - t), t] for t in range(tree.L)])
    return float(recursion.evaluate(tree, recursion.log_softmax(logits)).J)


def share_of_right(task: TokenTask) -> TokenTask:
    """The same task with a reward for each right token: an easier one to learn from."""
    answers = np.array([task.best(k)[0] for k in range(task.K)])
    return dataclasses.replace(task, reward=lambda prompt, tokens: (tokens == answers[prompt]).mean(1))


def main() -> None:
    """Print what every seed took, and the medians."""
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    task = token_tasks.copy()
    train(task, 0, steps=3)  # the first step of a process is slow
    for name, pays in (("0/1", task), ("share of right tokens", share_of_right(task))):
        runs = [train(task, seed, pays=pays) for seed in range(seeds)]
        rate = statistics.median(x.rate for x in runs)
        seconds = statistics.median(x.seconds_to() for x in runs)
        print(f"{task!r}, TRL's GRPOTrainer, reward {name}: {rate:.0f} tokens/s, 90 % after {seconds:.2f} s (medians)")
        print(f"  steps to 90 %: {', '.join(f'{x.steps_to():g}' for x in runs)}")


if __name__ == "__main__":
    main()
