import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import accuracy_score, f1_score, log_loss

from bert_helpers import DataError, metrics


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
    values = metrics.classification_metrics(logits, labels, n_resamples=10).value
    predicted, names = logits.argmax(axis=1), list(range(classes))
    assert values["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    average = {"average": "macro", "labels": names} if classes > 2 else {"pos_label": 1}
    assert values["f1"] == pytest.approx(f1_score(labels, predicted, zero_division=0, **average))
    assert values["log_loss"] == pytest.approx(log_loss(labels, metrics.probabilities(logits), labels=names))


def test_intervals_equal_scipys_percentile_bootstrap():
    logits, labels = draw(3, 240, 2)
    ours = metrics.classification_metrics(logits, labels, n_resamples=20_000)
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
    few, many = (metrics.classification_metrics(*draw(0, rows, 2)) for rows in (100, 10_000))
    for table in (few, many):
        assert ((table.low <= table.value) & (table.value <= table.high)).all()
    width = few.high - few.low
    assert ((many.high - many.low) / width).between(0.07, 0.14).all()  # 1 / sqrt(100) = 0.1
    again = metrics.classification_metrics(*draw(0, 100, 2))
    other = metrics.classification_metrics(*draw(0, 100, 2), seed=1)
    assert again.equals(few)
    assert not other.equals(few)


def test_resampling_in_chunks_counts_every_resample():
    def rows(weights):
        return {"rows": weights.sum(axis=-1)}

    table = metrics.intervals(rows, 3_000_000, n_resamples=3, difference=True)
    assert table.loc["rows"].tolist() == [3e6, 3e6, 3e6]


def test_large_logits_give_a_finite_log_loss():
    table = metrics.classification_metrics(np.array([[900.0, -900.0], [900.0, -900.0]]), np.array([0, 1]))
    assert table.value["log_loss"] == pytest.approx(900)


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
        metrics.classification_metrics(logits, labels)


def test_an_interval_reads_as_text():
    table = metrics.bootstrap(np.array([[1.0], [0.0]]), lambda sums: {"half": sums[..., 0] / 2}, n_resamples=50)
    assert metrics.format_interval(table.loc["half"]) == "0.500 (0.000 to 1.000)"
