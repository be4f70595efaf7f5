import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import accuracy_score, log_loss
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from bert_helpers import DataError, metrics
from bert_helpers.evaluation import comparison
from bert_helpers.tasks.qa import AnswerMeasure
from bert_helpers.tasks.regression import RegressionMeasure

CLASSES = metrics.ClassificationMeasure


def run(labels, skill, seed, *, classes=2):
    """Logits of a model of the given skill."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += skill
    return logits


def compare(first, second, labels, *, measure=metrics.ClassificationMeasure, groups=None, **options):
    """The comparison of two runs' predictions, of one kind of measure."""
    given = {} if groups is None else {"groups": groups}
    return comparison.compare(*(measure(side, labels, **given) for side in (first, second)), **options)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(0).integers(0, 2, 300)


def test_mcnemars_p_value_is_statsmodels():
    for first in range(0, 40, 3):
        for second in (0, 1, 2, 5, 13, 40):
            reference = statsmodels_mcnemar([[10, first], [second, 10]], exact=True).pvalue
            assert comparison.mcnemar(first, second) == pytest.approx(reference, rel=1e-9)
    assert comparison.mcnemar(0, 0) == 1


def test_the_difference_and_its_interval_are_scipys_paired_bootstrap(labels):
    first, second = run(labels, 0.8, 1), run(labels, 1.4, 2)
    # The two runs share half of their noise, as two trainings of one model do: an unpaired interval would be wider.
    second = (first + second) / 2
    table = compare(first, second, labels, n_resamples=5000).table
    losses = [metrics.probabilities(x)[np.arange(300), labels] for x in (first, second)]
    for name, (one, other) in {
        "accuracy": [x.argmax(axis=1) == labels for x in (first, second)],
        "log_loss": [-np.log(p) for p in losses],
    }.items():
        assert table.loc[name, "difference"] == pytest.approx(other.mean() - one.mean())
        for paired, same in ((True, True), (False, False)):
            reference = scipy_bootstrap(
                (other.astype(float), one.astype(float)),
                lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
                paired=paired,
                vectorized=True,
                n_resamples=5000,
                method="BCa",
                rng=np.random.default_rng(0),
            ).confidence_interval
            close = [
                abs(table.loc[name, "low"] - reference.low) < 0.004,
                abs(table.loc[name, "high"] - reference.high) < 0.004,
            ]
            assert all(close) == same, (name, paired)


def test_the_table_holds_both_runs_under_their_names(labels):
    first, second = run(labels, 0.5, 1), run(labels, 2, 2)
    table = compare(first, second, labels, names=("plain", "tuned"), n_resamples=100).table
    assert table.columns.tolist() == ["plain", "tuned", "difference", "low", "high"]
    for column, logits in (("plain", first), ("tuned", second)):
        assert table.loc["accuracy", column] == accuracy_score(labels, logits.argmax(axis=1))
        assert table.loc["log_loss", column] == pytest.approx(log_loss(labels, metrics.probabilities(logits)))
    assert table["difference"].to_numpy() == pytest.approx((table["tuned"] - table["plain"]).to_numpy())


def test_identical_runs_may_well_differ_by_chance(labels):
    logits = run(labels, 1, 1)
    result = compare(logits, logits, labels, n_resamples=200)
    assert result.p_value == 1
    assert (result.table[["difference", "low", "high"]] == 0).all(axis=None)
    assert result.sentence.endswith("on these 300 examples the difference may well be chance.")


def test_a_clearly_better_run_is_named(labels):
    weak, strong = run(labels, 0.5, 1), run(labels, 3, 2)
    result = compare(weak, strong, labels, names=("weak", "strong"), n_resamples=500)
    assert result.sentence.endswith("in favour of strong, beyond what the choice of these 300 examples explains.")
    assert result.table.loc["accuracy", "low"] > 0
    assert result.table.loc["log_loss", "high"] < 0
    right = [x.argmax(axis=1) == labels for x in (weak, strong)]
    only_weak, only_strong = (int((a & ~b).sum()) for a, b in (right, right[::-1]))
    assert f"only weak right {only_weak} times, only strong {only_strong}" in result.sentence
    assert result.p_value == comparison.mcnemar(only_weak, only_strong) < 1e-6
    turned = compare(strong, weak, labels, names=("strong", "weak"), n_resamples=500)
    assert turned.sentence.endswith("in favour of strong, beyond what the choice of these 300 examples explains.")
    assert turned.table.loc["accuracy", "high"] < 0


def test_where_interval_and_test_disagree_the_difference_is_on_the_edge():
    # 13 examples changed, 10 of them for the better: the exact test is conservative for so few.
    labels = np.zeros(200, int)
    right = np.column_stack([np.ones(200), np.zeros(200)])
    first, second = right.copy(), right.copy()
    first[:10], second[10:13] = [0, 1], [0, 1]
    result = compare(first, second, labels, n_resamples=2000)
    assert result.p_value == pytest.approx(0.0923, abs=1e-4)
    assert result.table.loc["accuracy", "low"] > 0
    assert result.sentence.endswith("the difference is on the edge of chance.")


def test_regression_runs_compare_by_pearson():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 5, 200)
    close, far = (scores + rng.normal(scale=scale, size=200) for scale in (0.5, 3))
    result = compare(far, close, scores, measure=RegressionMeasure, n_resamples=500)
    assert result.p_value is None
    assert "McNemar" not in result.sentence
    assert result.sentence.startswith("pearson is ")
    assert result.sentence.endswith("in favour of second, beyond what the choice of these 200 examples explains.")
    expected = [np.corrcoef(x, scores)[0, 1] for x in (far, close)]
    assert result.table.loc["pearson", ["first", "second"]].tolist() == pytest.approx(expected)
    assert result.table.loc["mse", "high"] < 0


def test_question_answering_runs_compare_by_f1():
    references = [[f"the red house {i}", f"house {i}"] for i in range(60)]
    whole = [f"house {i}" for i in range(60)]
    half = [f"house {i}" if i % 3 else "barn" for i in range(60)]
    result = compare(half, whole, references, measure=AnswerMeasure, n_resamples=500)
    assert result.p_value is None
    assert result.table.loc["exact_match", ["first", "second"]].tolist() == pytest.approx([2 / 3, 1])
    assert result.sentence.startswith("f1 is 0.667 for first and 1.000 for second")
    assert result.sentence.endswith("in favour of second, beyond what the choice of these 60 examples explains.")


def test_the_sentence_is_about_the_metric_asked_for(labels):
    weak, strong = run(labels, 0.5, 1), run(labels, 3, 2)
    result = compare(weak, strong, labels, metric="log_loss", names=("weak", "strong"), n_resamples=300)
    assert result.sentence.startswith("log_loss is ")
    assert result.sentence.endswith("in favour of strong, beyond what the choice of these 300 examples explains.")
    assert result.p_value is None  # McNemar's test is about right and wrong


def test_questions_of_one_context_are_resampled_together():
    right = np.repeat(np.arange(60) % 3 > 0, 10)  # a context's ten answers are all better in the second run, or none
    references, none = [["house"]] * 600, ["barn"] * 600
    some = np.where(right, "house", "barn").tolist()
    options = {"measure": AnswerMeasure, "n_resamples": 2000}
    alone = compare(none, some, references, **options).table.loc["f1"]
    together = compare(none, some, references, groups=np.arange(600) // 10, **options).table.loc["f1"]
    assert alone["difference"] == together["difference"]
    wider = (together["high"] - together["low"]) / (alone["high"] - alone["low"])
    assert wider == pytest.approx(np.sqrt(10), rel=0.15)


@pytest.mark.parametrize(
    ("first", "second", "labels", "measure", "message"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), np.zeros(3, int), CLASSES, "do not fit labels"),
        (np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(4, int), CLASSES, "do not fit labels"),
        (
            np.zeros((3, 2)),
            np.zeros((3, 5)),
            np.array([0, 1, 1]),
            metrics.ClassificationMeasure,
            "first and second do not predict the same",
        ),
        (
            np.zeros((3, 5)),
            np.zeros((3, 2)),
            np.array([0, 1, 1]),
            metrics.ClassificationMeasure,
            "the same examples and classes",
        ),
        (np.zeros(3), np.zeros(2), np.zeros(3), RegressionMeasure, "do not fit labels"),
        (["a"], ["a", "b"], [["a"]], AnswerMeasure, "2 answers, 1 references"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(first, second, labels, measure, message):
    with pytest.raises(DataError, match=message):
        compare(first, second, labels, measure=measure)


# --- slices ------------------------------------------------------------------------------------------------


def mean_of(values):
    return lambda rows: pd.DataFrame({"value": [np.mean(values[rows])]}, index=["mean"])


def test_slices_are_measured_on_their_own_rows_and_rare_ones_together():
    slices = ["b", "a", "", "c"] * 12 + ["x", "y", "y"]
    values = np.arange(51.0)
    table = comparison.by_slice(slices, mean_of(values))
    assert table.index.tolist() == [(name, "mean") for name in ("(none)", "a", "b", "c", "(rare)")]
    assert table.index.names == ["slice", "metric"]
    assert table["rows"].tolist() == [12, 12, 12, 12, 3]
    for name, position in (("b", 0), ("a", 1), ("(none)", 2), ("c", 3)):
        assert table.loc[(name, "mean"), "value"] == values[position:48:4].mean()
    assert table.loc[("(rare)", "mean"), "value"] == 49
    alone = comparison.by_slice(slices, mean_of(values), at_least=2)
    assert alone["rows"].to_dict()["y", "mean"] == 2
    assert alone["rows"].to_dict()["(rare)", "mean"] == 1


def test_slices_work_with_the_metrics_and_numbers_come_in_their_order(labels):
    logits, lengths = run(labels, 1, 0), np.random.default_rng(1).integers(3, 200, 300)
    slices = comparison.length_slices(lengths)
    table = comparison.by_slice(
        slices, lambda rows: metrics.ClassificationMeasure(logits[rows], labels[rows]).intervals(n_resamples=50)
    )
    starts = [int(name.split()[0]) for name in table.index.get_level_values("slice").unique()]
    assert starts == sorted(starts)
    accuracy = table.xs("accuracy", level="metric")
    assert accuracy["rows"].sum() == 300
    assert np.average(accuracy["value"], weights=accuracy["rows"]) == pytest.approx(
        accuracy_score(labels, logits.argmax(axis=1))
    )


def test_length_slices_hold_about_as_many_rows_each_and_one_length_lies_in_one_slice():
    lengths = np.random.default_rng(0).integers(1, 10_000, 400)
    names = pd.Series(comparison.length_slices(lengths, parts=4))
    assert names.value_counts().between(98, 102).all()
    for name, of in pd.Series(lengths).groupby(names):
        assert name == f"{of.min()} to {of.max()} tokens"
    tied = comparison.length_slices([5, 5, 5, 5, 5, 9], parts=3, unit="words")
    assert tied == ["5 to 5 words"] * 5 + ["9 to 9 words"]
    with pytest.raises(DataError, match="no lengths"):
        comparison.length_slices([])
