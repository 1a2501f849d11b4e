"""The pages of the learners: complete, calibrated, and able to find a wrong learner."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import Reader

from tabrl import cli, envs, prediction, report, sample
from tabrl._jit import compiled
from tabrl.learners import CONTROL, LEARNERS, policy
from tabrl.learners.draw import window
from tabrl.learners.judged import Acting
from tabrl.learners.show import spread
from tabrl.report import cases as report_cases
from tabrl.report import control as report_control
from tabrl.report import learners as report_learners
from tabrl.report import studies as learner_studies
from tabrl.report.learners import Part, Study
from tabrl.report.page import Table, render
from tabrl.trace import last
from tabrl.types import Transitions
from tabrl.verify import literal

CHOSEN = ["lambda-return", "batch", "off-policy-monte-carlo", "exploring-starts", "npg"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Study]]:
    folder = tmp_path_factory.mktemp("out") / "new"
    heard: list[str] = []
    found = report_learners.build(folder, CHOSEN, jobs=1, tick=heard.append)
    assert heard == CHOSEN and sorted(p.name for p in folder.iterdir()) == sorted(map(report_learners.file, CHOSEN))
    return folder, found


def pages(folder: Path) -> list[tuple[str, Reader]]:
    texts = [(folder / report_learners.file(name)).read_text(encoding="utf-8") for name in CHOSEN]
    return [(text, Reader(text)) for text in texts]


def test_pages_need_nothing_from_outside(built: tuple[Path, list[Study]]) -> None:
    files = {"index.html", *map(report_learners.file, CHOSEN)}
    for text, page in pages(built[0]):
        assert all(v.startswith("data:image/png;base64,") for v in page.values("img", "src"))
        assert all(v.startswith("#") or v.partition("#")[0] in files for v in page.values("a", "href"))
        assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe|/work|/tmp|/home|site-packages", text)
        assert page.values("img", "src") and all(len(alt) > 20 for alt in page.values("img", "alt"))


def test_every_learner_has_a_page_with_title_equation_and_result() -> None:
    names = report_learners.names()
    assert set(LEARNERS) <= set(names)
    assert "batch" in names and len(set(names)) == len(names)
    assert {name for name, x in LEARNERS.items() if x.kind == CONTROL} <= set(names)


def test_tables_hold_the_exact_expectation_beside_the_sample(built: tuple[Path, list[Study]]) -> None:
    (text, page), study = pages(built[0])[0], built[1][0]
    assert "Sutton &amp; Barto (2018), eq. 12.4" in text
    assert study.wrong == 0 and len(study.z) == 20 and abs(study.z).max() <= report_learners.BEYOND
    for part in study.parts:
        for row in part.table.rows:
            assert all(str(cell) in page.cells for cell in row)
            exact, mean, error, z = (float(str(x)) for x in row[3:])
            assert (mean - exact) / error == pytest.approx(z, abs=0.01 + 2e-6 / error)


def test_batch_learners_meet_their_closed_forms(built: tuple[Path, list[Study]]) -> None:
    study = built[1][1]
    assert study.wrong == 0 and len(study.z) == 0 and len(study.parts[0].table.rows) == 8
    assert all(float(str(row[-1])) <= 1e-9 for row in study.parts[0].table.rows)


def test_the_verdict_counts_what_lies_outside(built: tuple[Path, list[Study]]) -> None:
    table = Table(["a"], [["x"]])
    some = Study(
        "x", built[1][0].about, [Part("t", [], table, (), [0.1, -2.5, 3.0], 0), Part("u", [], table, (), [1.0])]
    )
    said = report_learners.verdict([some])
    assert said == (
        "2 of 4 z-scores lie outside ±2, where chance alone puts about 0.2; the largest is 3.00. No row is wrong."
    )
    wrong = some._replace(parts=[Part("t", [], table, (), [7.0], 1)])
    assert report_learners.verdict([wrong]).endswith("1 rows are wrong!")
    page = render(report.worlds_page([], [report_learners.overview([some, wrong])]))
    assert page.count("<tr class='bad'>") == 1 and "learner-x.html#top" in page
    Reader(page)


def wrong_learner(experience: Any, *, alpha: float, **options: Any) -> Any:
    """The learner of the package with a step size that is 10 % too large (twice as large where runs are few)."""
    return prediction.lambda_return(experience, alpha=(1.1 if compiled() else 2.0) * alpha, **options)


def test_a_wrong_learner_is_found_and_set_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cases = report_cases.cut(wrong_learner, literal.offline_lambda_return, "", lam=0.8)
    monkeypatch.setitem(report_cases.CASES, "wrong", (prediction.lambda_return, cases[:1]))
    x = report_learners.study("wrong")
    assert x.wrong >= 1 and abs(x.z).max() > report_learners.BEYOND
    assert "<tr class='bad'>" in render(report_learners.page(x, ["wrong"]))
    assert cli.main(["report", "--learner", "wrong", "--jobs", "1", "--out", str(tmp_path)]) == 1


def test_a_policy_above_the_optimum_is_found() -> None:
    mdp = envs.gambler(goal=4)
    x = Acting(mdp, np.ones((2, 3, mdp.S, mdp.A)), 0.1)
    table, broken = report_control.results(x)
    assert broken == 0 and not table.bad
    x.star = x.star._replace(J_eps=x.star.J_eps - 1, J=x.star.J - 1)
    table, broken = report_control.results(x)
    assert broken == 2 * 3 + 3 and table.bad == [0, 1]


def test_scores_where_nothing_varies() -> None:
    estimates = np.zeros((1, 4, 3))
    estimates[0, :, 2] = [1, 2, 3, 4]
    x = learner_studies.Comparison(
        np.array([1]), estimates, np.array([[0.0, 1.0, np.nan]]), np.zeros(3), ("same", "off", "unknown")
    )
    assert np.isnan(x.z[0, 0]) and np.isinf(x.z[0, 1]) and np.isnan(x.z[0, 2])
    for strange in (np.nan, np.inf):  # a run that left the numbers is no excuse
        estimates[0, 1, :] = strange
        assert np.isinf(x._replace(exact=np.zeros((1, 3))).z).all()
    estimates[0, :, 0] = [1, 2, 3, 4]
    assert x._replace(exact=np.full((1, 3), 2.0)).z[0, 0] == pytest.approx(0.5 / np.sqrt(5 / 12))


def test_a_learner_that_raises_has_a_page_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rng: np.random.Generator) -> Part:
        raise ValueError("learner[k=3] is <lost>; an answer is expected")

    monkeypatch.setitem(report_cases.CASES, "broken", ("Broken", [broken]))
    x = report_learners.study("broken")
    assert x.wrong == 1 and report_learners.verdict([x]) == "1 rows are wrong!"
    page = render(report_learners.page(x, ["broken"]))
    assert "ValueError: learner[k=3] is &lt;lost&gt;; an answer is expected" in page and "<tr class='bad'>" in page


@pytest.mark.parametrize("name", ["td0", "n-step-td", "td-lambda", "true-online-td", "monte-carlo"])
def test_cases_are_calibrated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other seeds than the report's: no score beyond 6, and the scores have about the spread of a normal law.

    The scores of a case depend on each other, at most as if there were one for each case: the mean square of k
    independent ones exceeds 1 + 6 sqrt(2/k) with probability below 1e-6 for the k of here.
    """
    monkeypatch.setattr(report_learners, "picture", lambda drawing: None)
    monkeypatch.setattr(report_cases, "RUNS", 2000)
    cases = report_cases.CASES[name][1]
    z = np.array([z for seed in range(2) for case in cases for z in case(np.random.default_rng([70, seed])).z])
    assert abs(z).max() <= report_learners.BEYOND
    assert (z**2).mean() <= 1 + 6 * np.sqrt(2 / (2 * len(cases)))


def test_td0_is_held_against_its_mean_square_error_too() -> None:
    rng = np.random.default_rng(0)
    part = report_cases.td0(report_cases.walk, rng, afresh=False)
    assert part.table.rows[-1][0] == "square error" and len(part.z) == 12


def test_fragments_go_on_from_the_values_alone() -> None:
    """Learning in pieces is learning in one go, fragment by fragment."""
    walk = envs.random_walk(5)
    pi = policy(walk, "uniform", 1.0)
    rule = partial(prediction.true_online_td, alpha=0.2, lam=0.8)

    def update(x: Any, V: Any) -> Any:
        return literal.online_lambda_return(x, V, 0.2, 0.8)  # type: ignore[arg-type]

    a, b = (
        learner_studies.by_fragment(walk, pi, np.random.default_rng(3), rule, update, L=4, counts=k, runs=5)
        for k in (np.arange(1, 13), np.array([12]))
    )
    assert (a.estimates[-1] == b.estimates[-1]).all() and (a.exact[-1] == b.exact[-1]).all()
    x, _ = learner_studies.whole(sample.Stream(walk, pi, np.random.default_rng(3), limit=4), 60)
    ends = np.flatnonzero(x.last) + 1
    for run in range(5):  # and each run is the learner alone on its own fragments
        alone = sample.cut(x, int(np.append(0, ends)[12 * run]), int(ends[12 * run + 11]))
        V = last(rule([alone], V=np.zeros(walk.S), every=1)).V
        assert abs(V[1:-1] - b.estimates[0, run]).max() <= 1e-14


def test_trajectories_begin_with_an_episode_and_run_on() -> None:
    walk, steps = envs.random_walk(5), 37
    x = learner_studies.trajectories(walk, np.ones((7, 1)), np.random.default_rng(4), steps, 20)
    assert len(x.r) == 20 * steps and (x.s[::steps] == 3).all()
    inside = np.arange(1, len(x.r)) % steps != 0
    went_on = np.where(x.last[:-1], 3, x.s_next[:-1])
    assert (x.s[1:] == went_on)[inside].all()


def test_runs_are_laid_out_in_rounds() -> None:
    n = 12
    x = Transitions(np.arange(n) % 3, np.arange(n) % 3, np.arange(float(n)), np.ones(n), np.arange(n) % 2 == 1)
    run, t = np.divmod(np.arange(n), 6)
    a, b = learner_studies.rounds(x, run, t // 4, 3)
    assert a.r.tolist() == [0, 1, 2, 3, 6, 7, 8, 9] and b.r.tolist() == [4, 5, 10, 11]
    assert a.s.tolist() == [0, 1, 2, 0, 3, 4, 5, 3] and a.last.tolist() == 4 * [False, True]


def test_two_workers_write_the_same_pages(built: tuple[Path, list[Study]], tmp_path: Path) -> None:
    report_learners.build(tmp_path, CHOSEN[1:3], jobs=2)
    for (_, old), name in zip(pages(built[0])[1:3], CHOSEN[1:3], strict=True):
        new = Reader((tmp_path / report_learners.file(name)).read_text(encoding="utf-8"))
        assert new.cells == old.cells and new.values("img", "src") == old.values("img", "src")


def test_the_axis_of_returns_reaches_from_the_optimum_to_below_the_late_median() -> None:
    curve = np.array([[-1e9, -500.0, np.nan], [-30.0, -20.0, -1e6], [-30.0, -20.0, -40.0], [-30.0, -20.0, -40.0]])
    low, high = window(curve, -10.0, -15.0)
    assert low == pytest.approx(-10 - 1.06 * 80) and high == pytest.approx(-10 + 0.06 * 80)
    low, high = window(np.full((4, 2), np.nan), -10.0, -15.0)  # no policy ever ends
    assert low < -15 and high > -10
    low, high = window(np.full((4, 2), -10.0), -10.0, -10.0)
    assert low < -10 < high


def test_runs_that_never_end_are_counted_apart() -> None:
    assert spread(np.array([1.0, np.nan, 3.0])) == "never ends in 1 of 3 runs; 2 ± 1 in the others"
    assert spread(np.array([np.nan, np.nan])) == "never ends in 2 of 2 runs"
    assert spread(np.array([2.5])) == "2.5" and spread(np.array([1.0, 3.0])) == "2 ± 1"
    assert report_control.median(np.array([np.nan, np.nan, 1.0])) == "most never end"
    assert report_control.median(np.array([np.nan, 2.0, 1.0])) == "1"


def test_a_policy_better_than_the_best_is_set_off() -> None:
    from tabrl.learners.judged import Improved
    from tabrl.learners.policies import Paths
    from tabrl.report import policies

    mdp, _ = next(iter(policies.WORLDS.values()))
    world = mdp()
    theta = np.zeros((1, policies.RUNS, world.S, world.A))
    x = Improved(world, theta)
    same = np.zeros((1, policies.RUNS))
    table, wrong = policies.results(x, Paths(theta, same + 1, same, same, same))
    assert wrong == 0 and not table.bad
    x.J_star = x.start - 1.0
    table, wrong = policies.results(x, Paths(theta, same + 1, same, same, same))
    assert wrong == policies.RUNS and table.bad == [3]
