import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import accuracy_score, f1_score, log_loss

from bert_helpers import DataError, metrics
from bert_helpers.evaluation import comparison
from bert_helpers.tasks.entities import EntityMeasure
from bert_helpers.tasks.qa import AnswerMeasure
from bert_helpers.tasks.regression import RegressionMeasure


def draw(seed, rows, classes, skill=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += skill
    return logits, labels


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 200), st.integers(2, 6))
def test_values_equal_scikit_learns(seed, rows, classes):
    logits, labels = draw(seed, rows, classes)
    values = metrics.ClassificationMeasure(logits, labels).values()
    predicted, names = logits.argmax(axis=1), list(range(classes))
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    average = {"average": "macro", "labels": names} if classes > 2 else {"pos_label": 1}
    assert values["f1"] == pytest.approx(f1_score(labels, predicted, zero_division=0, **average))
    assert values["log_loss"] == pytest.approx(log_loss(labels, metrics.probabilities(logits), labels=names))


def test_intervals_equal_scipys_percentile_bootstrap():
    logits, labels = draw(3, 240, 2)
    ours = metrics.ClassificationMeasure(logits, labels).intervals(n_resamples=20_000)
    predicted = logits.argmax(axis=1)
    # scikit-learn's own functions take 35 s for so many resamples; that ours equal them is tested above
    f1 = lambda true, said: 2 * np.sum(true & said) / (np.sum(true) + np.sum(said))  # noqa: E731
    for name, score in (("accuracy", lambda true, said: np.mean(true == said)), ("f1", f1)):
        reference = scipy_bootstrap(
            (labels, predicted),
            score,
            paired=True,
            vectorized=False,
            n_resamples=4000,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert ours.low[name] == pytest.approx(reference.low, abs=0.008)
        assert ours.high[name] == pytest.approx(reference.high, abs=0.008)


def test_intervals_hold_the_value_are_seeded_and_shrink_with_the_rows():
    few, many = (metrics.ClassificationMeasure(*draw(0, rows, 2)).intervals() for rows in (100, 10_000))
    for table in (few, many):
        assert ((table.low <= table.value) & (table.value <= table.high)).all()
    width = few.high - few.low
    assert ((many.high - many.low) / width).between(0.07, 0.14).all()  # 1 / sqrt(100) = 0.1
    again = metrics.ClassificationMeasure(*draw(0, 100, 2)).intervals()
    other = metrics.ClassificationMeasure(*draw(0, 100, 2)).intervals(seed=1)
    assert again.equals(few)
    assert not other.equals(few)


def test_resampling_in_chunks_counts_every_resample():
    def rows(weights):
        return {"rows": weights.sum(axis=-1)}

    table = metrics.intervals(rows, 3_000_000, n_resamples=3, difference=True)
    assert table.loc["rows"].tolist() == [3e6, 3e6, 3e6]


def test_large_logits_give_a_finite_log_loss():
    values = metrics.ClassificationMeasure(np.array([[900.0, -900.0], [900.0, -900.0]]), np.array([0, 1])).values()
    assert values["log_loss"] == pytest.approx(900)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 2)), np.zeros(4, int), "do not fit"),
        (np.zeros((0, 2)), np.zeros(0, int), "do not fit"),
        (np.zeros((2, 2)), np.array([0, 2]), "classes 0…1"),
        (np.zeros((2, 2)), np.array([0, -100]), "classes 0…1"),
        (np.array([[0, 1], [np.nan, 0]]), np.array([0, 1]), "prediction 2 is not finite"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(logits, labels, message):
    with pytest.raises(DataError, match=message):
        metrics.ClassificationMeasure(logits, labels)


def test_an_interval_reads_as_text():
    table = metrics.intervals(lambda weights: {"half": weights @ np.array([0.5, 0])}, 2, n_resamples=50)
    assert metrics.format_interval(table.loc["half"]) == "0.500 (0.000 to 1.000)"


# --- every measure -----------------------------------------------------------------------------------------


def noisy_logits(rng, labels, share):
    """Logits that favour the label; for about a share of the rows they favour another one, or are less sure."""
    logits = 4 * np.eye(3)[np.where(rng.random(len(labels)) < share, (labels + 1) % 3, labels)]
    return logits + rng.normal(size=logits.shape) * share


def noisy_tags(rng, tags, share):
    """The tags, of which about a share are O or of another type."""
    return [[rng.choice(["O", "B-PER"]) if rng.random() < share else tag for tag in row] for row in tags]


CLASSES = np.resize([0, 1, 2, 1], 60)
SCORES = np.linspace(0, 5, 60)
ANSWERS = [[f"the old house {i}", f"house {i}"] for i in range(60)]
TAGS = [["B-PER", "I-PER", "O", "B-LOC", "O"][: 2 + i % 4] for i in range(60)]
# measure -> its references, and predictions for them with about a share of mistakes
MEASURES = {
    metrics.ClassificationMeasure: (CLASSES, lambda rng, share: noisy_logits(rng, CLASSES, share)),
    RegressionMeasure: (SCORES, lambda rng, share: SCORES + 4 * share * rng.normal(size=60)),
    AnswerMeasure: (
        ANSWERS,
        lambda rng, share: ["a barn house" if rng.random() < share else texts[1] for texts in ANSWERS],
    ),
    EntityMeasure: (TAGS, lambda rng, share: noisy_tags(rng, TAGS, share)),
}
each_measure = pytest.mark.parametrize("kind", MEASURES, ids=lambda kind: kind.__name__)


def measured(kind, share, rows=None, seed=0):
    """The measure of predictions with that share of mistakes, on the given rows, which may repeat."""
    references, draw_predictions = MEASURES[kind]
    predictions = draw_predictions(np.random.default_rng(seed), share)
    if rows is None:
        return kind(predictions, references)
    chosen = [[side[i] for i in rows] for side in (predictions, references)]
    return kind(*(np.array(side) if isinstance(references, np.ndarray) else side for side in chosen))


@each_measure
def test_values_and_intervals_are_those_of_the_statistic(kind):
    measure = measured(kind, 0.3)
    values, table = measure.values(), measure.intervals(n_resamples=300)
    assert values == pytest.approx({name: float(v) for name, v in measure.statistic(np.ones(measure.units)).items()})
    assert {type(value) for value in values.values()} == {float}
    assert table["value"].to_dict() == values
    assert ((table.low <= table.value) & (table.value <= table.high)).all()
    names = list(values)[:2]
    assert measure.values(names) == {name: values[name] for name in names}
    assert measure.intervals(names, n_resamples=300).equals(table.loc[names])
    assert not measure.intervals(n_resamples=300, seed=1).equals(table)
    assert measure.examples == measure.units == 60


@each_measure
def test_weights_are_repeated_rows_and_many_of_them_are_measured_at_once(kind):
    measure, weights = measured(kind, 0.3), np.random.default_rng(1).integers(0, 3, (5, 60)).astype(float)
    together = measure.statistic(weights)
    for position, row in enumerate(weights):
        repeated = measured(kind, 0.3, np.repeat(np.arange(60), row.astype(int)))
        assert {name: values[position] for name, values in together.items()} == pytest.approx(repeated.values())


@each_measure
def test_what_a_measure_declares_of_its_metrics_is_true(kind):
    perfect, poor = measured(kind, 0), measured(kind, 0.6)
    best, values = perfect.values(), poor.values()
    assert {*kind.headline, *kind.lower_is_better} <= values.keys()
    for name in perfect.shares.keys() & values.keys():
        assert (best[name], 0 <= values[name] <= 1) == (1, True) or name == "all_o_accuracy"
    for name in values.keys() - {"all_o_accuracy"}:  # that of tagging nothing is one of the data
        assert (best[name] < values[name]) == (name in kind.lower_is_better), name
        for runs in ({"poor": poor, "good": perfect}, {"good": perfect, "poor": poor}):
            told = comparison.compare(*runs.values(), metric=name, names=tuple(runs), n_resamples=200)
            assert told.sentence.endswith("in favour of good, beyond what the choice of these 60 examples explains.")


@each_measure
def test_shares_where_all_agree_have_the_exact_bound_and_other_metrics_none(kind):
    measure = measured(kind, 0)
    table = measure.intervals(n_resamples=100)
    exact = binomtest(60, 60).proportion_ci(method="exact")
    macro = ("f1", "f1_macro") if kind is metrics.ClassificationMeasure else ()  # no single row has all classes
    for name, row in table[table.value.isin([0.0, 1.0])].iterrows():
        if measure.shares.get(name):
            assert (row.low, row.high) == pytest.approx((exact.low, exact.high)), name
        elif name in measure.shares and name not in macro:  # a share of the rows that contain an entity
            assert exact.low * 0.8 < row.low <= exact.low * (1 + 1e-9), name
        else:  # no bound, or one that differs by rounding
            assert np.isnan(row.low) or row.low == pytest.approx(row.value), name


@each_measure
def test_predictions_and_references_of_different_number_are_refused(kind):
    references, draw_predictions = MEASURES[kind]
    predictions = draw_predictions(np.random.default_rng(0), 0.3)
    for one, other in ((59, 60), (60, 59), (0, 0)):
        with pytest.raises(DataError):
            kind(predictions[:one], references[:other])


@each_measure
def test_measures_of_different_rows_are_not_compared(kind):
    with pytest.raises(DataError, match="do not predict the same examples"):
        comparison.compare(measured(kind, 0.3), measured(kind, 0.3, np.arange(40)))
