"""The command `tabrl tokens`: what it prints is what the records say, and what it refuses."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabrl import cli
from tabrl.cli.token_settings import interval, maker
from tabrl.envs import token_tasks
from tabrl.figures.token_runs import Runs, begin, several
from tabrl.tokens import exact, train
from tabrl.tokens.draws import Groups
from tabrl.tokens.methods import Capped, Clip, Outcome, Penalty, Process, Sequence
from tabrl.tokens.table import TableLM

SHORT = ("--steps", "4", "--runs", "2", "--G", "4")


def run(*words: str) -> int:
    return cli.main(["tokens", *words])


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(*words) == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    return out


def row(out: str, first: str) -> list[str]:
    return next(line.split() for line in out.splitlines() if line.split()[:1] == [first])


# ---- tasks ----


def test_tasks_are_listed_with_their_uniform_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys)
    for name, constructor in token_tasks.TASKS.items():
        task = constructor()
        uniform = exact.objective(task, TableLM(task))
        assert [f"{task.K}", f"{task.V}", f"{task.length}"] == row(out, name)[1:4]
        assert f"{uniform:.4g}" in row(out, name)


@pytest.mark.parametrize("name", ["copy", "two-step", "parity"])
def test_a_task_is_printed_with_answers_and_exact_chances(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, task = printed(capsys, name), token_tasks.make(name)
    p = exact.success(task, TableLM(task))
    for k, prompt in enumerate(task.prompts):
        line = next(x for x in out.splitlines() if x.startswith(prompt + " "))
        assert task.answer(task.best(k)[0]) in line and line.rstrip().endswith(f"{p[k]:.4g}")
    assert ("rewarded too" in out) == (task.steps is not None)


# ---- runs ----


def test_the_table_is_that_of_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each printed number against runs of the method that are made here, and against the saved arrays."""
    path = tmp_path / "runs.npz"
    words = ("--steps", "30", "--runs", "3", "--seed", "5", "--every", "10", "--save", str(path))
    out = printed(capsys, "two-step", "--algo", "dapo", *words)
    task, rng = token_tasks.make("two-step"), np.random.default_rng(5)
    for i, own in enumerate(rng.spawn(3)):
        policy = TableLM(task)
        training = train.dapo(task, policy, own, every=10)
        records = [next(training) for _ in range(3)]
        found = row(out, str(i + 1))
        J, kl = exact.objective(task, policy), exact.kl(task, policy, TableLM(task)).sequence
        entropy = exact.entropy(task, policy).token
        assert found[1:5] == [f"{J:.4f}", f"{records[-1].p.mean():.4f}", f"{kl:.4g}", f"{entropy:.4g}"]
        assert found[8] == f"{np.mean([x.kept for x in records]):.3f}"
        steps = [x.k for x in records if x.p.mean() >= 0.9]
        assert " ".join(found[12:]) == (str(steps[0]) if steps else "> 30")
        drawn = np.diff([0, *(x.t for x in records)])
        used = sum(n / (x.passes - 1) for n, x in zip(drawn, records, strict=True))
        assert float(found[9]) == pytest.approx(1 + drawn.sum() / used, abs=0.005) and found[10] == "1"
        with np.load(path, allow_pickle=False) as file:
            np.testing.assert_array_equal(file["theta"][i], policy.theta)
            np.testing.assert_array_equal(file["J"][1:, i], [x.J for x in records])
            assert file["k"].tolist() == [0, 10, 20, 30] and file["J"][0, i] == pytest.approx(1 / 7)


@pytest.mark.parametrize("algo", ["ppo", *train.METHODS])
def test_every_method_runs(algo: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "modular", "--algo", algo, *SHORT)
    assert f"algorithm   {algo}" in out and f"{row(out, '1')[10]}" == ("3" if algo == "ppo" else "1")
    assert re.search(r"mean: J = 0\.\d{4} ± \S+, success", out)


def test_dead_prompts_are_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups of two hardly ever hold a right answer to a long copy: all prompts are as good as dead from the start."""
    monkeypatch.setitem(token_tasks.TASKS, "copy", lambda: token_tasks.copy(3, vocab=7, prompts=2))
    out = printed(capsys, "copy", "--algo", "grpo", "--steps", "4", "--runs", "1", "--G", "2", "--entropy", "0")
    prompts = token_tasks.copy(3, vocab=7, prompts=2).prompts
    assert f"run 1 failed: 2 of 2 prompts are dead: {prompts[0]!r} (p = 0.003), {prompts[1]!r} (p = 0.003)" in out
    assert "dead: 2 answers miss the best one with a chance above 99 %" in out and row(out, "1")[5:8] == [
        "2",
        "of",
        "2",
    ]


def test_a_run_that_only_needs_time_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "two-step", "--algo", "grpo", *SHORT)
    assert re.search(
        r"run 1 has not arrived: no prompt is dead, the least p is 0\.\d+, of '\(.*mod 7'; more --steps may", out
    )
    assert "prompts are dead" not in out


def test_plot_holds_runs_mean_and_optimum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "curve.svg"
    printed(capsys, "bandit", "--algo", "grpo", *SHORT, "--plot", str(path))
    assert path.read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_resumed_is_the_same_as_without_a_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, whole, parts = (tmp_path / name for name in ("state.npz", "whole.npz", "parts.npz"))
    words = ("modular", "--algo", "ppo", "--every", "5", "--seed", "3")
    printed(capsys, *words, "--runs", "1", "--steps", "20", "--save", str(whole))
    printed(capsys, *words, "--steps", "10", "--checkpoint", str(state))
    printed(capsys, *words, "--steps", "10", "--checkpoint", str(state), "--resume", "--save", str(parts))
    with np.load(whole, allow_pickle=False) as a, np.load(parts, allow_pickle=False) as b:
        np.testing.assert_array_equal(a["theta"], b["theta"])
        assert b["k"].tolist() == [10, 15, 20] and (a["J"][2:] == b["J"]).all()
    assert run(*words[:3], "--every", "3", "--steps", "3", "--checkpoint", str(state), "--resume") == 2
    assert "--every is 3; a divisor of the 20 updates in the file" in capsys.readouterr().err


# ---- settings ----


def method(*words: str) -> Any:
    options = cli.parser().parse_args(["tokens", *words])
    return maker(options, token_tasks.make(options.task))(np.random.default_rng(0)).method


@pytest.mark.parametrize(
    ("words", "field", "part"),
    [
        ("grpo --G 4 --prompts 3", "draw", Groups(4, 3)),
        ("grpo --clip 0.1", "loss", Clip(0.1, 0.1)),
        ("grpo --clip 0.1:0.3", "loss", Clip(0.1, 0.3)),
        ("gspo --clip 0.1:0.3", "loss", Sequence(0.1, 0.3)),
        ("cispo --clip 3", "loss", Capped(None, 3.0)),
        ("cispo --clip 0.5:3", "loss", Capped(0.5, 3.0)),
        ("rloo --std population", "credit", Outcome("population", leave_one_out=True)),
        ("grpo --process", "credit", Process("sample")),
        ("dr-grpo --process --std population", "credit", Process("population")),
        ("grpo --beta 0.5 --kl k2 --place weighted --target 2", "kl", Penalty(0.5, "k2", "weighted", 2.0)),
        ("ppo --beta 0.5", "kl", Penalty(0.5, "k1", "reward")),
        ("ppo --kl k3", "kl", Penalty(0.01, "k3", "reward")),
        ("ppo --beta 0", "kl", None),
        ("dapo --how token", "how", "token"),
        ("dapo --entropy 0", "entropy", 0.0),
        ("grpo --epochs 3", "epochs", 3),
    ],
)
def test_options_replace_parts(words: str, field: str, part: Any) -> None:
    found, usual = method("two-step", "--algo", *words.split()), method("two-step", "--algo", words.split()[0])
    assert getattr(found, field) == part != getattr(usual, field)
    if found.credit.__class__ is usual.credit.__class__ and words.split()[0] != "ppo":
        assert [x for x in found._fields if getattr(found, x) != getattr(usual, x)] == [field]


def test_records_are_a_fortieth_of_a_run_and_divide_it() -> None:
    for steps, every in ((200, 5), (1, 1), (39, 1), (130, 2), (397, 1)):
        assert interval(cli.parser().parse_args(["tokens", "copy", "--steps", str(steps)])) == every


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cpy", "task is 'cpy'; one of copy, reverse, "),
        ("brakets", "did you mean brackets"),
        ("copy --algo gropo", "did you mean grpo"),
        ("copy --algo grpo --policy grru", "did you mean gru"),
        ("copy --algo grpo --std smple", "--std is 'smple'; one of sample, population, none is expected; did you mean"),
        ("copy --algo grpo --how tokn", "did you mean token"),
        ("copy --algo grpo --beta 1 --kl k4", "--kl is 'k4'; one of k1, k2, k3"),
        ("copy --algo grpo --beta 1 --place los", "did you mean loss"),
        ("copy --algo grpo --kl k1", "--beta is missing"),
        ("copy --algo grpo --process", "--process is given; a task with steps is expected, such as two-step"),
        ("two-step --algo ppo --process", "--process is given; none is expected for ppo"),
        ("two-step --algo ppo --std none", "--std none is given; none is expected for ppo"),
        ("two-step --algo grpo --process --beta 1 --place reward", "--place is 'reward'; loss or weighted is expected"),
        ("copy --algo grpo --G 1", "--G is 1; a whole number >= 2"),
        ("copy --algo grpo --steps 0", "--steps is 0; a whole number >= 1"),
        ("copy --algo grpo --seed -1", "--seed is -1; a whole number >= 0"),
        ("copy --algo grpo --entropy nan", "--entropy is nan; a finite number >= 0"),
        ("copy --algo grpo --lr 0", "--lr is 0.0; a finite number > 0"),
        ("copy --algo grpo --clip -1", "low is -1.0; a number >= 0"),
        ("copy --algo grpo --steps 10 --every 3", "--every is 3; a divisor of --steps 10 is expected"),
        ("copy --algo grpo --device cpu", "--device is 'cpu'; none is expected for a table"),
        ("copy --algo grpo --policy gru --device tpu", "--device is 'tpu'; one of auto, cpu, cuda"),
        ("copy --algo grpo --plot x.gif", "--plot is 'x.gif'; a file ending in"),
        ("copy --algo grpo --resume", "--checkpoint is missing"),
        ("copy --algo grpo --checkpoint x.npz --runs 2", "--runs is 2; 1 is expected, as --checkpoint keeps one run"),
        ("copy --algo grpo --checkpoint no/such.npz --resume", "no/such.npz"),
        ("--algo grpo", "TASK is missing before --algo grpo"),
    ],
)
def test_refused_with_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.startswith("tabrl: ") and err.count("\n") == 1


# ---- networks ----


def test_networks_say_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [x for x in sys.modules if x == "torch" or x.startswith("tabrl.tokens.nets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("tabrl.tokens.nets", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("copy", "--algo", "grpo", "--policy", "gru", *SHORT) == 2
    err = capsys.readouterr().err
    assert "torch is not installed" in err and 'pip install "tabrl[torch]"' in err


@pytest.mark.parametrize("policy", ["gru", "transformer"])
@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_networks_are_judged_exactly_too(policy: str, algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                         ) -> None:  # fmt: skip
    torch = pytest.importorskip("torch")
    threads, path = torch.get_num_threads(), tmp_path / "net.npz"
    try:
        words = ("--policy", policy, "--dtype", "float64", "--device", "cpu", "--save", str(path))
        out = printed(capsys, "modular", "--algo", algo, *SHORT, *words)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert f"{policy}, " in out and "parameters on cpu, float64" in out
    from tabrl.tokens import nets

    task, kind = token_tasks.make("modular"), {"gru": nets.GRU, "transformer": nets.Transformer}[policy]
    with np.load(path, allow_pickle=False) as file:
        for i, theta in enumerate(file["theta"]):
            net = kind(task, np.random.default_rng(0), device="cpu", dtype="float64")
            net.theta = torch.as_tensor(theta)
            assert float(exact.objective(task, net)) == pytest.approx(file["J"][-1, i], abs=1e-12)


# ---- runs ----


def test_runs_do_not_depend_on_their_neighbours() -> None:
    """Seeds are spawned: the first runs of many are the runs of few."""
    import functools

    make = functools.partial(begin, "bandit", "grpo", every=2)
    few, many = (several(make, np.random.default_rng(4), runs=n, records=3) for n in (2, 4))
    for name in set(Runs._fields) - {"tokens_per_s", "k", "theta"}:
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:, :2])
    np.testing.assert_array_equal(few.theta, many.theta[:2])


@pytest.mark.parametrize("option", ["--plot", "--save", "--checkpoint"])
def test_files_are_looked_at_before_the_work(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = "nowhere/x.png" if option == "--plot" else "nowhere/x.npz"
    assert cli.main(["tokens", "copy", "--algo", "grpo", "--runs", "1", "--steps", "1000000", option, name]) == 2
    assert f"{option} is '{name}'; a file in a folder that exists is expected" in capsys.readouterr().err
