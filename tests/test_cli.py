"""The command line: exit codes, messages, files."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tabrl import __version__, cli, dp, envs, gradient
from tabrl.envs import token_tasks
from tabrl.mdp import MDP
from tabrl.report import learners as report_learners
from tabrl.td_moments import trajectory_moments


def run(*words: str) -> int:
    return cli.main(words)


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"tabrl {__version__}"
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


@pytest.mark.parametrize("words", [(), ("nosuch",), ("solve",), ("solve", "cliff", "--tol", "x"), ("report", "--jobs")])
def test_wrong_usage_is_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert capsys.readouterr().err.startswith("usage: tabrl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("solve", "nosuch"), "world is 'nosuch'; one of grid4x4, "),
        (("solve", "clif"), "did you mean cliff"),
        (("report", "--env", "cliff", "gambel"), "world is 'gambel'; one of "),
        (("solve", "cliff", "--method", "polcy"), "did you mean policy_iteration"),
        (("solve", "cliff", "--gamma", "1.5"), "gamma is 1.5; a number in [0, 1] is expected"),
        (("solve", "cliff", "--tol", "0"), "tol is 0.0; a positive number is expected"),
        (("solve", "cliff", "--plot", "x.gif"), "--plot is 'x.gif'; a file ending in .png, .svg, .pdf is expected"),
        (("solve", "two-state", "--gamma", "1"), "use gamma < 1"),
        (("solve", "missing.npz"), "missing.npz"),
        (("report", "--jobs", "0", "--env", "loop"), "--jobs is 0; a positive number"),
        (("verify", "file.py:f"), "ROW is missing after file.py:f"),
    ],
)
def test_what_is_not_there_is_2_with_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.startswith("tabrl: ") and err.count("\n") == 1


def test_solve_prints_the_answer_and_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "two-state", "--method", "value_iteration", "--tol", "1e-6") == 0
    out, err = capsys.readouterr()
    words = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    solution = dp.solve(envs.two_state(), "value_iteration", tol=1e-6)
    assert words["method"] == ["value_iteration"] and words["iterations"] == [str(solution.iterations)]
    assert float(words["bound"][0]) == pytest.approx(solution.bound, rel=1e-2)
    assert float(words["0"][0]) == pytest.approx(solution.V[0], rel=1e-9)
    assert err == "" and "\x1b" not in out


def test_solve_prints_grids_as_grids(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "cliff") == 0
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["-13", "↑", *"CCCCCCCCCC", "G"]


def test_solve_lists_the_first_of_many_states(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "taxi") == 0
    assert "481 more states; V from 0 to 20" in capsys.readouterr().out


def test_solve_above_the_tolerance_is_1_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "garnet", "--tol", "1e-20") == 1
    out, err = capsys.readouterr()
    assert "rounding floor" in out and "(rounding floor); at most --tol 1e-20 is expected" in err


def test_solve_reads_files_and_takes_gamma(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.npz"
    names = {"states": ("[red]", "s:smile:"), "actions": ()}
    MDP([[[0, 1]], [[0, 1]]], [1, 0], 0.5, names=names).save(path)
    assert run("solve", str(path), "--gamma", "0.25") == 0
    out = capsys.readouterr().out
    assert "gamma=0.25" in out and "[red]" in out and "s:smile:" in out


def test_solve_refuses_files_that_are_no_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(b"nothing")
    assert run("solve", str(path)) == 2
    err = capsys.readouterr().err
    assert "a file written by MDP.save is expected" in err and "Traceback" not in err


def test_solve_saves_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "answer.npz"
    assert run("solve", "forest", "--save", str(path)) == 0
    solution = dp.solve(envs.forest())
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == set(solution._fields)
        for name, value in solution._asdict().items():
            assert np.array_equal(file[name], value), name
    assert [p.name for p in tmp_path.iterdir()] == ["answer.npz"]


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
@pytest.mark.parametrize("world", ["grid5x5", "gambler"])
def test_solve_plots(world: str, name: str, magic: bytes, tmp_path: Path) -> None:
    assert run("solve", world, "--plot", str(tmp_path / name)) == 0
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_solve_into_a_missing_folder_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "forest", "--save", str(tmp_path / "no" / "x.npz")) == 2
    assert "no" in capsys.readouterr().err


def test_envs_lists_every_world(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("envs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(envs.WORLDS)
    assert lines[1].split()[1:4] == ["16", "4", "1"]
    assert all(line.rstrip().endswith(".") for line in lines[1:])


def test_report_writes_the_page_and_shows_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "--out", str(tmp_path / "r"), "--env", "forest", "loop", "--jobs", "1") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"2 worlds, {2 * len(dp.METHODS)} answers. Every bound contains the true error.",
        f"wrote {tmp_path / 'r' / 'index.html'}",
    ]
    assert "2/2" in err
    assert (tmp_path / "r" / "index.html").read_text(encoding="utf-8").count("<section") == 2


def test_report_with_a_failed_method_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(mdp: MDP, *, tol: float, limit: int) -> Any:
        raise RuntimeError("lost")

    monkeypatch.setitem(dp.METHODS, "broken", broken)
    assert run("report", "--out", str(tmp_path), "--env", "loop", "--jobs", "1") == 1
    assert "1 runs failed" in capsys.readouterr().out


def test_verify_passes_and_prints_a_line_per_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(" checks, 0 failed")
    assert len(lines) == int(lines[-1].split()[0]) + 2
    assert all(line.rstrip().endswith("pass") for line in lines[1:-1])


def test_verify_judges_a_function_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        "import numpy as np\n"
        "def good(P, r, gamma):\n"
        "    V = np.zeros(len(r))\n"
        "    for _ in range(5000):\n"
        "        V = (r + gamma * P @ V).max(1)\n"
        "    return V\n"
        "def bad(P, r, gamma):\n"
        "    return good(P, r, 0.9 * gamma)\n"
    )
    (tmp_path / "mine.py").write_text(source)
    assert run("verify", f"{tmp_path}/mine.py:good", "E1.5") == 0
    capsys.readouterr()
    assert run("verify", f"{tmp_path}/mine.py:bad", "E1.5") == 1
    assert "FAIL" in capsys.readouterr().out
    assert run("verify", f"{tmp_path}/mine.py:good", "E9.9") == 2
    assert "E1.5" in capsys.readouterr().err


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dp, "solve", interrupted)
    assert run("solve", "forest") == 130


def test_module_runs_as_a_program_and_closes_quietly_on_a_closed_pipe() -> None:
    command = [sys.executable, "-W", "error", "-m", "tabrl", "envs"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read().decode()
    assert "Traceback" not in err and "Exception" not in err


def test_importing_the_command_line_is_light() -> None:
    heavy = ["numpy", "matplotlib", "gymnasium", "rich", "joblib", "numba"]
    code = f"import sys, tabrl.cli; print([m for m in {heavy[1:]} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def table_of(out: str) -> dict[str, list[str]]:
    """Rows of what was printed, by their first word."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}


def test_learn_prints_estimates_beside_exact_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("learn", "random-walk", "--algo", "td0", "--steps", "500", "--runs", "5") == 0
    out, err = capsys.readouterr()
    rows = table_of(out)
    assert rows["algorithm"] == ["TD(0)"] and rows["equation"][:2] == ["V(s)", "<-"]
    assert "alpha = 0.1" in out and "500 transitions, 5 runs, seed 0" in out
    for i, name in enumerate("ABCDE", 1):
        estimate, _, exact, difference, expected = map(float, rows[name])
        assert exact == pytest.approx(i / 6, abs=1e-6)
        assert difference == pytest.approx(estimate - exact, abs=0.006) and expected != exact
    moments = [*trajectory_moments(envs.random_walk(), np.ones((7, 1)), alpha=0.1, steps=500, every=500)]
    assert float(rows["C"][-1]) == pytest.approx(moments[0].mean[3], rel=1e-5)
    assert err == "" and "\x1b" not in out


def test_learn_says_where_no_exact_expectation_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("learn", "random-walk", "--algo", "monte-carlo", "--steps", "200", "--runs", "1") == 0
    rows = table_of(capsys.readouterr().out)
    assert rows["A"][1] == "–" and rows["expected"] == ["not", "known", "exactly", "for", "these", "settings"]


def test_learn_control_prints_exact_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("learn", "cliff", "--algo", "sarsa", "--steps", "2000", "--runs", "3", "--eps", "0.2") == 0
    out = capsys.readouterr().out
    assert "eps = 0.2" in out and "J*               -13  exact" in out and "17 more states" in out
    assert "best 0.2-soft policy" in out


def test_learn_in_a_gymnasium_environment_with_and_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--algo", "q-learning", "--gamma", "0.9", "--steps", "300", "--runs", "2")
    assert run("learn", "FrozenLake-v1", *words) == 0
    out = capsys.readouterr().out
    assert "average of the last 10 %" in out and "J*" in out
    assert run("learn", "Blackjack-v1", *words) == 0
    out = capsys.readouterr().out
    assert "none: the environment has no model to solve" in out and "J*" not in out


def test_learn_improves_a_policy_and_prints_its_exact_return(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.npz"
    words = ("--runs", "3", "--batch", "64", "--steps", "3000", "--save", str(path))
    assert run("learn", "dyna-maze", "--algo", "ppo", *words) == 0
    out, err = capsys.readouterr()
    rows = table_of(out)
    assert rows["algorithm"][0] == "PPO" and "clip = 0.2, epochs = 4" in out and "minibatches = 4" in out
    assert "3,008 transitions, 3 runs, seed 0" in out and err == ""  # whole batches
    with np.load(path, allow_pickle=False) as file:
        assert file["theta"].shape == (47, 3, 47, 4) and file["t"][-1] == 3008 and file["J"].shape == (47, 3)
        J, cosine = file["J"][-1], file["cosine"][-1]
        assert file["J_star"] == pytest.approx(0.95**13) and file["kl"].shape == file["entropy"].shape == (47, 3)
        expected = gradient.objective(envs.make("dyna-maze"), file["theta"][-1, 0])
    assert J[0] == pytest.approx(expected, rel=1e-9)
    assert rows["J*"][0] == "0.513342" and rows["J"][0] == f"{J.mean():.4g}"
    assert rows["worst"][1] == f"{J.min():.4g}" and rows["within"][2] == str((J > 0.99 * 0.95**13).sum())
    assert rows["cosine"][0] == f"{cosine.mean():.3g}" and {"KL", "entropy", "clip"} <= set(rows)


def test_learn_says_what_a_policy_loses_in_each_state(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--gamma", "0.99", "--runs", "4", "--steps", "20000", "--entropy", "0.05:0", "--optimism", "1")
    assert run("learn", "frozen-lake", "--algo", "ppo-kl", "--target", "0.02", *words) == 0
    out = capsys.readouterr().out
    assert "entropy = 0.05:0" in out and "optimism = 1" in out and "clip fraction" not in out
    lake, rows = envs.make("frozen-lake", gamma=0.99), table_of(out)
    star = dp.solve(lake)
    for row in ("r0c0", "r2c1", "r3c2"):
        s = 4 * int(row[1]) + int(row[3])
        a = [*lake.names.actions].index(rows[row][0])
        assert float(rows[row][3]) == pytest.approx(star.V[s], rel=1e-5) and 0.25 <= float(rows[row][1]) <= 1
        assert float(rows[row][4]) == pytest.approx(star.V[s] - star.Q[s, a], rel=0.06, abs=1e-9)


def test_learn_says_when_a_policy_never_changed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("learn", "cliff", "--algo", "reinforce", "--runs", "2", "--steps", "100", "--limit", "50") == 0
    out = capsys.readouterr().out
    assert "no update was made" in out and "episodes cut after 50 steps" in out and "uniform policy" in out


def test_learn_improves_in_gymnasium_with_and_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--gamma", "0.99", "--steps", "400", "--runs", "2")
    assert run("learn", "FrozenLake-v1", "--algo", "actor-critic", *words) == 0
    out = capsys.readouterr().out
    assert "average of the last 10 %" in out and "J*          0.542026" in out and "within 1 %" in out
    assert "cosine" not in out  # no exact gradient while playing
    assert run("learn", "Blackjack-v1", "--algo", "a2c", "--batch", "32", *words) == 0
    out = capsys.readouterr().out
    assert "none: the environment has no model to solve" in out and "J*" not in out and "KL" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("clif", "--algo", "sarsa"), "did you mean cliff"),
        (("cliff", "--algo", "sarza"), "did you mean sarsa"),
        (("cliff", "--algo", "sarsa", "--lam", "0.5"), "--lam is 0.5; sarsa takes --alpha, --eps"),
        (("cliff", "--algo", "sarsa", "--policy", "optimal"), "none is expected, as sarsa looks for its own"),
        (("cliff", "--algo", "td0", "--policy", "best"), "policy is 'best'; one of uniform, optimal, eps-greedy"),
        (("cliff", "--algo", "td0", "--plot", "x.gif"), "--plot is 'x.gif'"),
        (("cliff", "--algo", "td0", "--seed", "-1"), "--seed is -1"),
        (("cliff", "--algo", "td0", "--steps", "0"), "steps is 0"),
        (("cliff", "--algo", "td0", "--runs", "0"), "runs is 0"),
        (("cliff", "--algo", "td0", "--alpha", "2"), "alpha is 2.0"),
        (("riverswim", "--algo", "monte-carlo"), "at gamma = 1 the chain must end"),
        (("two-state", "--algo", "td0", "--gamma", "1"), "use gamma < 1"),
        (("Taxi-v4", "--algo", "td0"), "ENV is 'Taxi-v4'; a world or an .npz model is expected"),
        (("Taxi-v4", "--algo", "sarsa"), "--gamma is None; a discount is expected"),
        (("Nowhere-v0", "--algo", "sarsa", "--gamma", "1"), "Nowhere"),
        (("CartPole-v1", "--algo", "sarsa", "--gamma", "1"), "observation_space is Box"),
        (("cliff", "--algo", "exploring-starts"), "limit is None"),
        (("cliff", "--algo", "ppo", "--eps", "0.1"), "--eps is 0.1; ppo takes --alpha, --lam, --batch, --clip, "),
        (("cliff", "--algo", "trpo", "--alpha", "1"), "--alpha is 1.0; trpo takes --lam, --batch, --delta"),
        (("cliff", "--algo", "sarsa", "--delta", "1"), "--delta is 1.0; sarsa takes --alpha, --eps"),
        (("cliff", "--algo", "ppo", "--policy", "optimal"), "none is expected, as ppo looks for its own"),
        (("cliff", "--algo", "ppo", "--batch", "0"), "--batch is 0"),
        (("cliff", "--algo", "ppo", "--entropy", "1:-1"), "--entropy is 1:-1; two numbers >= 0"),
        (("cliff", "--algo", "a2c", "--alpha", "-1"), "--alpha is -1.0; a positive number"),
        (("cliff", "--algo", "npg", "--runs", "0"), "runs is 0"),
        (("riverswim", "--algo", "reinforce"), "limit is None; a number of steps is expected"),
        (("Blackjack-v1", "--algo", "a2c"), "--gamma is None; a discount is expected"),
    ],
)
def test_learn_refuses_what_is_not_there(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("learn", *words) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.startswith("tabrl: ") and err.count("\n") == 1


def test_learn_needs_an_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("learn", "cliff") == 2 and run("learn", "cliff", "--algo", "td0", "--alpha", "x") == 2
    assert capsys.readouterr().err.count("usage: tabrl learn") == 2


def test_learn_saves_everything_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    words = ("--steps", "100", "--runs", "3", "--save", str(path))
    assert run("learn", "random-walk", "--algo", "td0", *words) == 0
    with np.load(path, allow_pickle=False) as file:
        assert file["V"].shape == (50, 3, 7) and file["t"][-1] == 100
        assert file["V_pi"][3] == pytest.approx(0.5) and file["expected_square_error"].shape == (50,)
    assert run("learn", "gambler", "--algo", "sarsa", *words) == 0
    with np.load(path, allow_pickle=False) as file:
        assert file["Q"].shape == (50, 3, 101, 51) and file["Q_star"].shape == (101, 51)


@pytest.mark.parametrize(
    "words",
    [
        ("random-walk", "td0"),
        ("random-walk", "td-lambda", "--alpha", "1", "--lam", "1"),  # diverges
        ("cliff", "expected-sarsa"),
        ("Blackjack-v1", "sarsa", "--gamma", "1"),
        ("two-state", "td0", "--alpha", "1/k"),
        ("dyna-maze", "npg", "--batch", "50"),
        ("cliff", "actor-critic"),  # starts far below the picture
        ("Blackjack-v1", "trpo", "--gamma", "1", "--batch", "100"),
    ],
)
def test_learn_plots(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    env, algo, *rest = words
    assert run("learn", env, "--algo", algo, *rest, "--steps", "300", "--runs", "3", "--plot", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_learn_reads_a_model_from_a_file_and_a_seed_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.npz"
    envs.gambler(goal=5).save(path)
    words = ("learn", str(path), "--algo", "n-step-td", "--n", "2", "--policy", "eps-greedy", "--eps", "0.3")
    found = []
    for seed in ("1", "1", "2"):
        assert run(*words, "--steps", "200", "--runs", "2", "--seed", seed) == 0
        found.append(capsys.readouterr().out.partition("experience")[2].partition("\n")[2])
    assert found[0] == found[1] != found[2]


def test_report_of_a_learner_links_to_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", "--out", str(tmp_path), "--learner", "batch", "--jobs", "1") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["1 learners. No row is wrong.", f"wrote {tmp_path / 'index.html'}"] and "1/1" in err
    assert "href='learner-batch.html#top'" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "learner-batch.html").is_file()
    assert run("report", "--learner", "btch", "--out", str(tmp_path)) == 2
    assert "did you mean batch" in capsys.readouterr().err


def test_report_without_names_writes_worlds_learners_and_token_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report_learners, "names", lambda: ["batch"])
    monkeypatch.setattr(envs, "WORLDS", {"loop": envs.loop})
    monkeypatch.setattr(token_tasks, "TASKS", {"bandit": token_tasks.bandit})
    assert run("report", "--out", str(tmp_path), "--jobs", "1") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("1 worlds, ") and out[1] == "1 learners. No row is wrong."
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<section") == 3 and "href='#learners'" in page and "id='world-loop'" in page
    assert out[2] == "1 token tasks. No policy is better than the best answers." and "href='#tokens'" in page


# ---- figure ----


def test_figure_lists_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tabrl.figures.gallery import FIGURES

    assert run("figure") == 0
    listed = capsys.readouterr().out
    assert all(name in listed and picture.summary in listed for name, picture in FIGURES.items())
    path = tmp_path / "cliff.png"
    assert run("figure", "example-6.6", "--plot", str(path), "--runs", "3", "--seed", "1") == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "3 runs" in capsys.readouterr().out
    first = path.read_bytes()
    assert run("figure", "example-6.6", "--plot", str(path), "--runs", "3", "--seed", "1") == 0
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["7.3"], "figure is '7.3'; one of"),
        (["7.2", "--runs", "1"], "--runs is 1; 2 or more are expected"),
        (["7.2", "--seed", "-1"], "--seed is -1; a whole number >= 0"),
        (["7.2", "--plot", "x.gif"], "--plot is 'x.gif'; a file ending in"),
    ],
)
def test_figure_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("figure", *words) == 2
    assert message in capsys.readouterr().err
