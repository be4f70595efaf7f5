import numpy as np
import pytest
from scipy.special import ndtr, softmax
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import t as student
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from bert_helpers import intervals, metrics
from bert_helpers.evaluation import comparison
from bert_helpers.tasks.regression import RegressionMeasure


def draw(seed, rows, classes, *, tied=False):
    rng = np.random.default_rng(seed)
    labels = np.append(np.arange(classes), rng.integers(0, classes, rows - classes))  # each class at least once
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1
    return np.round(logits) if tied else logits, labels


def scikit_learns(logits, labels, weights=None):
    """All metrics by scikit-learn."""
    classes, predicted, chances = logits.shape[1], logits.argmax(axis=1), softmax(logits, axis=1)
    given = {"sample_weight": weights}
    one_hot = np.eye(classes)[labels]
    f1 = {
        f"f1_{how}": f1_score(labels, predicted, average=how, zero_division=0, **given) for how in ("macro", "weighted")
    }
    if classes == 2:
        brier = brier_score_loss(labels, chances[:, 1], **given)
        f1["f1"] = f1_score(labels, predicted, **given)
        area = roc_auc_score(labels, chances[:, 1], **given)
    else:
        f1["f1"] = f1["f1_macro"]
        brier = np.average(((chances - one_hot) ** 2).sum(axis=1), weights=weights)
        # One by one: scikit-learn's own multi_class="ovr" takes no weights for some averages.
        area = np.mean([roc_auc_score(one_hot[:, i], chances[:, i], **given) for i in range(classes)])
    return {
        "accuracy": accuracy_score(labels, predicted, **given),
        **f1,
        "log_loss": log_loss(labels, chances, **given),
        "brier": brier,
        "roc_auc": area,
    }


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("rows", "classes"), [(20, 2), (300, 2), (60, 3), (300, 7)])
def test_the_full_set_equals_scikit_learns(rows, classes, tied):
    logits, labels = draw(rows, rows, classes, tied=tied)
    values = metrics.ClassificationMeasure(logits, labels).values()
    assert values == pytest.approx(scikit_learns(logits, labels))
    if classes > 2:
        chances = softmax(logits, axis=1)
        assert values["roc_auc"] == pytest.approx(roc_auc_score(labels, chances, multi_class="ovr", average="macro"))
        assert values["brier"] == pytest.approx(brier_score_loss(labels, chances, scale_by_half=False))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_weighted_metrics_equal_scikit_learns_with_sample_weights(classes, tied):
    logits, labels = draw(3, 150, classes, tied=tied)
    measure = metrics.ClassificationMeasure(logits, labels)
    weights = np.random.default_rng(0).integers(0, 4, (6, 150)).astype(float)  # as in resampling, including zeros
    together = measure.statistic(weights)
    for position, row in enumerate(weights):
        expected = scikit_learns(logits, labels, row)
        assert {name: values[position] for name, values in together.items()} == pytest.approx(expected)
        assert measure.statistic(row) == pytest.approx(expected)


def test_a_weighted_metric_is_that_of_the_repeated_rows():
    logits, labels = draw(5, 80, 3, tied=True)
    weights = np.random.default_rng(1).integers(0, 3, 80)
    rows = np.repeat(np.arange(80), weights)
    repeated = metrics.ClassificationMeasure(logits[rows], labels[rows])
    whole = metrics.ClassificationMeasure(logits, labels)
    assert whole.statistic(weights.astype(float)) == pytest.approx(repeated.statistic(np.ones(len(rows))))


def test_the_area_is_left_out_where_a_class_has_no_examples():
    logits, _ = draw(0, 30, 3)
    assert "roc_auc" not in metrics.ClassificationMeasure(logits, np.arange(30) % 2).values()
    assert "roc_auc" not in metrics.ClassificationMeasure(logits[:, :2], np.ones(30, int)).values()


def test_recall_and_precision_of_each_class_equal_scikit_learns():
    logits, labels = draw(2, 90, 4)
    logits[:, 3] = -9  # never predicted
    names = ["a", "b", "c", "d"]
    table = metrics.ClassificationMeasure(logits, labels).by_class(names, n_resamples=200)
    precision, recall, _, rows = precision_recall_fscore_support(labels, logits.argmax(axis=1), zero_division=np.nan)
    assert table.xs("recall", level="metric")["value"].to_numpy() == pytest.approx(recall)
    assert table.xs("precision", level="metric")["value"].to_numpy() == pytest.approx(precision, nan_ok=True)
    assert np.isnan(table.loc[("d", "precision"), ["value", "low", "high"]].astype(float)).all()
    assert table.loc[("d", "recall"), "value"] == 0
    assert table["rows"].tolist() == np.repeat(rows, 2).tolist()
    absent = metrics.ClassificationMeasure(np.eye(3), np.array([0, 1, 1])).by_class(["a", "b", "c"], n_resamples=20)
    assert np.isnan(absent.loc[("c", "recall"), "value"])
    assert absent.loc[("c", "precision"), "value"] == 0
    assert absent.loc[("b", "recall"), "value"] == 0.5


# --- bounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [15, 60, 400])
def test_the_bounds_of_a_mean_are_scipys_bca(rows):
    values = np.random.default_rng(rows).exponential(size=rows)  # skewed: bias and acceleration matter
    ours = intervals.intervals(lambda weights: {"mean": weights @ values / rows}, rows, n_resamples=10_000)
    # scipy has the normal quantile where ours has Student's t: the level at which its quantile is ours.
    reach = np.sqrt(rows / (rows - 1)) * student.ppf(0.975, rows - 1)
    options = {"n_resamples": 10_000, "confidence_level": 2 * ndtr(reach) - 1, "vectorized": True}
    bca, percentile = (
        scipy_bootstrap(
            (values,), lambda x, axis: x.mean(axis=axis), method=method, rng=np.random.default_rng(0), **options
        ).confidence_interval
        for method in ("BCa", "percentile")
    )
    # scipy happens to draw the same resamples, so up to 200 rows the two agree to the last digits; beyond, ours leaves
    # out groups. BCa differs from the percentile bounds by 0.1 (400 rows) to 0.5 (15) standard errors.
    error = values.std() / np.sqrt(rows)
    assert ours.loc["mean", ["low", "high"]].tolist() == pytest.approx([bca.low, bca.high], abs=0.02 * error)
    assert ours.loc["mean", "high"] > percentile.high + 0.04 * error


@pytest.mark.parametrize("rows", [1, 7, 20, 240])
@pytest.mark.parametrize("right", [True, False])
def test_a_share_of_rows_that_all_agree_has_the_exact_binomial_bound(rows, right):
    labels = np.arange(rows) % 2
    logits = np.eye(2)[labels if right else 1 - labels] * 4
    accuracy = metrics.ClassificationMeasure(logits, labels).intervals().loc["accuracy"]
    exact = binomtest(rows if right else 0, rows).proportion_ci(method="exact")
    assert (accuracy.low, accuracy.high) == pytest.approx((exact.low, exact.high))


def test_the_recall_of_a_class_is_bounded_by_its_own_rows():
    labels = np.array([0] * 30 + [1] * 5)
    table = metrics.ClassificationMeasure(np.eye(2)[np.zeros(35, dtype=int)], labels).by_class(["no", "yes"])
    for name, hits, rows in (("no", 30, 30), ("yes", 0, 5)):
        exact, row = binomtest(hits, rows).proportion_ci(method="exact"), table.loc[name, "recall"]
        assert (row.low, row.high) == pytest.approx((exact.low, exact.high))


def test_other_metrics_have_no_interval_where_every_resample_agrees():
    table = RegressionMeasure(np.array([1.0, 2.0]), np.array([2.0, 1.0])).intervals()
    assert table.loc["spearman", "value"] == pytest.approx(-1)
    assert table.loc["spearman", ["low", "high"]].isna().all()
    assert metrics.format_interval(table.loc["spearman"]) == "-1.000 (no interval)"


def test_an_f1_of_zero_has_no_interval_for_it_is_zero_of_rows_of_other_classes_too():
    labels = np.arange(40) % 2
    table = metrics.ClassificationMeasure(np.eye(2)[np.zeros(40, dtype=int)] * 3, labels).intervals()
    assert metrics.format_interval(table.loc["f1"]) == "0.000 (no interval)"
    perfect = metrics.ClassificationMeasure(np.eye(2)[labels] * 3, labels).intervals().loc["f1"]
    exact = binomtest(20, 20).proportion_ci(method="exact")  # the rows of class 1
    assert (perfect.low, perfect.high) == pytest.approx((exact.low, 1))


def test_two_runs_that_give_the_same_answers_differ_by_nothing():
    labels = np.arange(20) % 2
    runs = (metrics.ClassificationMeasure(logits, labels) for logits in (np.eye(2)[labels], 2 * np.eye(2)[labels]))
    table = comparison.compare(*runs).table
    assert tuple(table.loc["accuracy", ["difference", "low", "high"]]) == (0, 0, 0)


def test_the_interval_of_a_mean_is_as_wide_as_students():
    values = np.random.default_rng(0).normal(size=80)
    row = intervals.intervals(lambda weights: {"mean": weights @ values / 80}, 80).loc["mean"]
    width = 2 * student.ppf(0.975, 79) * values.std(ddof=1) / np.sqrt(80)
    assert row["high"] - row["low"] == pytest.approx(width, rel=0.08)


def test_resamples_in_which_a_metric_is_undefined_do_no_harm():
    # The single row of class 1 is missing from a third of the resamples: no area there.
    logits, labels = draw(0, 30, 2)
    labels = (np.arange(30) == 0).astype(int)
    table = metrics.ClassificationMeasure(logits, labels).intervals(n_resamples=300)
    assert np.isfinite(table.loc["roc_auc"].astype(float)).all()


def test_ranks_in_a_resample_are_those_of_the_drawn_rows():
    values = np.array([0.3, 0.1, 0.3, 0.9])
    rank = intervals.ranker(values)
    assert rank(np.ones(4)).tolist() == [2, 0.5, 2, 3.5]
    assert rank(np.array([[2.0, 0, 1, 1], [0, 0, 0, 3]])).tolist() == [[1.5, 0, 1.5, 3.5], [0, 0, 0, 1.5]]


# --- coverage ----------------------------------------------------------------------------------------------

# Do 95% intervals contain the truth in 95% of test sets? 3000 simulated test sets per metric: the Monte Carlo error of
# the share is 0.4 points, hardly more for the resamples that 100 test sets share; 93-97% is 4 of them to either side.
# Each metric is written for a whole group at once, since one at a time they would take ten minutes; the first two
# tests tie these forms to the public functions.
SIMULATIONS, GROUP, FEW_RESAMPLES = 3000, 100, 500


def scored(rng, rows, sets):
    """Test sets of a two-class model: labels, and scores (the logit of class 1), (rows, sets)."""
    labels = (rng.random((rows, sets)) < 0.4).astype(float)
    scores = 1.2 * rng.normal(1.8 * labels - 0.9, 1) - 0.2
    return labels, scores


def accuracy(labels, scores):
    right = ((scores > 0) == labels).astype(float)
    return lambda weights: weights @ right / weights.sum(axis=-1, keepdims=True)


def cross_entropy(labels, scores):
    losses = np.logaddexp(0, np.where(labels == 1, -scores, scores))
    return lambda weights: weights @ losses / weights.sum(axis=-1, keepdims=True)


def f1(labels, scores):
    hits, both = labels * (scores > 0), labels + (scores > 0)
    return lambda weights: 2 * (weights @ hits) / (weights @ both)


def area(labels, scores):
    # Rows are exchangeable, so each set's may stand in the order of its scores: one ranking serves the group.
    positive = np.take_along_axis(labels, scores.argsort(axis=0), axis=0)
    rank = intervals.ranker(np.arange(len(positive)))

    def statistic(weights):
        positives = weights @ positive
        pairs = positives * (weights.sum(axis=-1, keepdims=True) - positives)
        return ((weights * rank(weights)) @ positive - positives**2 / 2) / pairs

    return statistic


def pearson(first, second):
    products = np.stack([first, second, first * second, first**2, second**2])

    def statistic(weights):
        x, y, xy, xx, yy = weights @ products / weights.sum(axis=-1, keepdims=True)
        return (xy - x * y) / np.sqrt((xx - x**2) * (yy - y**2))

    return statistic


def correlated(rng, rows, sets):
    first = rng.normal(size=(rows, sets))
    return first, 0.8 * first + 0.6 * rng.normal(size=(rows, sets))


def grouped(metric, sides, **options):
    """Intervals of a metric for every test set, one row per set."""
    of_weights = metric(*sides)

    def statistic(weights):
        return dict(enumerate(np.moveaxis(of_weights(weights), -1, 0)))

    return intervals.intervals(statistic, len(sides[0]), n_resamples=FEW_RESAMPLES, **options)


@pytest.mark.parametrize(
    ("metric", "name", "rows"), [(accuracy, "accuracy", 60), (cross_entropy, "log_loss", 60), (f1, "f1", 60)]
)
def test_the_grouped_forms_give_the_intervals_of_the_public_functions(metric, name, rows):
    labels, scores = scored(np.random.default_rng(0), rows, 3)
    table = grouped(metric, (labels, scores), seed=4)
    for i in range(3):
        logits = np.column_stack([np.zeros(rows), scores[:, i]])
        measure = metrics.ClassificationMeasure(logits, labels[:, i].astype(int))
        public = measure.intervals([name], n_resamples=FEW_RESAMPLES, seed=4)
        assert table.loc[i].to_numpy() == pytest.approx(public.loc[name].to_numpy())


def test_the_grouped_forms_of_area_and_pearson_give_the_intervals_of_the_public_functions():
    labels, scores = scored(np.random.default_rng(0), 60, 1)
    order = scores[:, 0].argsort()
    logits = np.column_stack([np.zeros(60), scores[order, 0]])
    measure = metrics.ClassificationMeasure(logits, labels[order, 0].astype(int))
    public = measure.intervals(n_resamples=FEW_RESAMPLES)
    assert grouped(area, (labels, scores)).loc[0].to_numpy() == pytest.approx(public.loc["roc_auc"].to_numpy())
    sides = correlated(np.random.default_rng(0), 60, 1)
    public = RegressionMeasure(sides[0][:, 0], sides[1][:, 0]).intervals(n_resamples=FEW_RESAMPLES)
    assert grouped(pearson, sides).loc[0].to_numpy() == pytest.approx(public.loc["pearson"].to_numpy())


@pytest.mark.parametrize(
    ("metric", "draw_sets", "rows"),
    [
        (accuracy, scored, 240),
        (cross_entropy, scored, 500),
        (f1, scored, 500),
        (area, scored, 500),
        (pearson, correlated, 500),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_intervals_hold_the_truth_in_95_percent_of_test_sets(metric, draw_sets, rows):
    many = draw_sets(np.random.default_rng(99), 500_000, 1)
    truth = metric(*many)(np.ones((1, 500_000))).item()
    held, above = [], []
    for group in range(SIMULATIONS // GROUP):
        table = grouped(metric, draw_sets(np.random.default_rng(group), rows, GROUP), seed=group)
        held.append((table["low"] <= truth) & (truth <= table["high"]))
        above.append(table["low"] > truth)
    assert 0.93 <= np.mean(held) <= 0.97, f"{np.mean(held):.4f}"
    assert np.mean(above) < 0.05  # and the truth is not missed on one side alone
