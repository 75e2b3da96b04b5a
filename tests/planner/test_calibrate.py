import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from kinetics_serve.cost import DENSE, KVPolicy, Price
from kinetics_serve.cost.hardware import GPUS
from kinetics_serve.planner.calibrate import calibrate, fixed_point
from kinetics_serve.planner.calibration import Calibration, CalibrationError, ServedPoint
from kinetics_serve.planner.choose import at_recorded_lengths, choose_for_budget
from kinetics_serve.planner.figures import draw
from kinetics_serve.planner.plan import Plan
from kinetics_serve.runner.replays import Recording
from kinetics_serve.strategies.race import Race
from tests.synthetic import ARCHITECTURE, synthetic

SPARSE = KVPolicy(64, 16, 2)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    recordings = [synthetic(questions=10, trials=8), synthetic(questions=10, trials=8, kv=SPARSE, skill=0.45)]
    return calibrate(recordings, GPUS["b200"], repeats=2)


def test_more_samples_and_longer_ones_find_more(calibration: Calibration) -> None:
    coverage = {(p.kv, p.samples, p.max_tokens): p.coverage.mean for p in calibration.fixed}
    for kv in (DENSE, SPARSE):
        assert coverage[kv, 1, 400] < coverage[kv, 8, 400]
        assert coverage[kv, 8, 25] < coverage[kv, 8, 400]


def test_a_single_samples_coverage_is_its_majority_and_its_pass_rate(calibration: Calibration) -> None:
    (point,) = (p for p in calibration.fixed if (p.kv, p.samples, p.max_tokens) == (DENSE, 1, 400))
    trials = [trial for question in synthetic(questions=10, trials=8).questions for trial in question.trials]
    assert point.coverage.mean == pytest.approx(sum(trial.correct for trial in trials) / len(trials))
    assert point.majority.mean == pytest.approx(point.coverage.mean)


def test_a_vote_is_never_right_more_often_than_one_of_its_samples(calibration: Calibration) -> None:
    assert all(point.majority.mean <= point.coverage.mean for point in calibration.fixed)
    assert any(point.majority.mean < point.coverage.mean for point in calibration.fixed)


def test_a_larger_cache_block_makes_samples_dearer() -> None:
    small = synthetic(questions=6, trials=4)
    large = replace(small, metadata=replace(small.metadata, engine={"cache_block": 128}))
    spent = [
        fixed_point(Recording.whole(traces, Price(ARCHITECTURE, 281.0)), 2, samples=4, cap=400).eflops.mean
        for traces in (small, large)
    ]
    assert spent[1] > spent[0]


def test_a_calibration_for_other_hardware_is_refused(calibration: Calibration) -> None:
    calibration.check_hardware(GPUS["b200"])
    with pytest.raises(CalibrationError, match="calibrate --hardware h100"):
        calibration.check_hardware(replace(GPUS["b200"], name="h100", flops=2 * GPUS["b200"].flops))


def test_what_is_spent_stays_within_what_was_stated(calibration: Calibration) -> None:
    assert all(point.spent.mean <= point.budget for point in calibration.served)


def test_races_are_tried_that_a_few_votes_decide(calibration: Calibration) -> None:
    races = {
        point.options["deciding_votes"]: point
        for point in calibration.served
        if (point.arm.kv, point.strategy, point.samples_worth, point.arm.max_tokens) == (DENSE, "race", 8, 400)
    }
    assert set(races) == {None, 1, 2, 4, 7}
    assert races[1].spent.mean < races[2].spent.mean < races[7].spent.mean
    choice = choose_for_budget(calibration_of(calibration, [races[2]]), 10**15, at_recorded_lengths(calibration, 50))
    assert choice is not None
    assert choice.policy == Race(races[2].options["stop_confidence"], 2)


def test_a_calibration_comes_back_from_its_file_as_it_was(calibration: Calibration, tmp_path: Path) -> None:
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == calibration


def test_another_file_is_no_calibration(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"calibration": 99}')
    with pytest.raises(CalibrationError, match="version 99"):
        Calibration.load(tmp_path / "other.json")


def test_the_same_model_and_kv_policy_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="same model and KV policy"):
        calibrate([synthetic(), synthetic(seed=1)], GPUS["b200"])


def test_figures_and_table_are_written(calibration: Calibration, tmp_path: Path) -> None:
    files = draw(calibration, tmp_path)
    assert {file.suffix for file in files} == {".png", ".svg", ".csv"}
    assert all(file.stat().st_size > 0 for file in files)
    with (tmp_path / "frontier.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(calibration.fixed) + len(calibration.served)
    assert {row["kv_budget"] for row in rows} == {"dense", "64"}
    frontier = sorted(
        (float(row["eflops"]), float(row["accuracy"]))
        for row in rows
        if row["kind"] == "served" and row["on_frontier"] == "1"
    )
    assert [accuracy for _, accuracy in frontier] == sorted({accuracy for _, accuracy in frontier})


def test_models_are_compared_on_the_questions_that_all_were_asked() -> None:
    weak, strong = synthetic(questions=6, trials=2), synthetic(1, questions=9, trials=2, model="large")
    hard = replace(strong, questions=strong.questions[2:])
    found = calibrate([weak, hard], GPUS["b200"], repeats=1)
    assert found.questions == 4
    assert {len(point.by_question) for point in found.served} == {4}
    alone = calibrate([replace(weak, questions=weak.questions[2:])], GPUS["b200"], repeats=1)
    assert [point for point in found.fixed if point.model == "tiny"] == list(alone.fixed)
    with pytest.raises(ValueError, match="no question is in all of these traces"):
        calibrate([weak, replace(strong, questions=strong.questions[6:])], GPUS["b200"])


def test_a_cascade_of_two_models_is_measured_where_the_dearer_one_is_better() -> None:
    weak = synthetic(questions=12, trials=8, skill=0.4)
    strong = synthetic(1, questions=12, trials=8, skill=0.9, model="large", parameters=10**9)
    found = calibrate([weak, strong], GPUS["b200"], repeats=4)
    cascades = [point for point in found.served if point.strategy == "cascade"]
    assert cascades
    assert {arm.model for point in cascades for arm in point.arms[1:]} == {"large"}
    assert all(point.spent.mean <= point.budget for point in cascades)
    always, rarely = (
        max(
            (point for point in cascades if point.options["escalate_below"] == below),
            key=lambda point: point.accuracy.mean,
        )
        for below in (0.9, 0.7)
    )
    assert rarely.spent.mean < always.spent.mean
    alone = max(point.accuracy.mean for point in found.served if [arm.model for arm in point.arms] == ["tiny"])
    assert always.accuracy.mean > alone
    arm_of = at_recorded_lengths(found, 50)
    choice = choose_for_budget(calibration_of(found, cascades), 10**15, arm_of)
    assert choice is not None
    assert [arm.model for arm in Plan.of(choice, choice.budget).arms] == ["tiny", "large"]


def calibration_of(found: Calibration, points: list[ServedPoint]) -> Calibration:
    return replace(found, served=tuple(points))


def test_how_far_votes_agree_is_kept_and_lost_by_no_file(calibration: Calibration, tmp_path: Path) -> None:
    assert all(point.agreement is not None and 0 < point.agreement.mean <= 1 for point in calibration.served)
    single = [point for point in calibration.served if point.strategy == "majority_vote" and point.agreement]
    assert any(point.agreement.mean < 1 for point in single if point.agreement)
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == calibration


def test_a_file_from_before_agreement_was_kept_can_still_be_read(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    calibration.save(path)
    content = json.loads(path.read_text())
    for point in content["served"]:
        del point["agreement"]
    path.write_text(json.dumps(content))
    assert all(point.agreement is None for point in Calibration.load(path).served)
