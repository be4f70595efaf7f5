import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint

from bert_helpers import DataError, metrics
from bert_helpers.evaluation import calibration


def two_class(confidence, correct):
    """Logits and labels of a model that predicts class 1 with the given confidences, right where `correct`."""
    confidence = np.asarray(confidence, dtype=float)
    logits = np.column_stack([np.zeros(len(confidence)), np.log(confidence / (1 - confidence))])
    return logits, np.asarray(correct, dtype=int)


def draw(seed, rows, *, classes=3, temperature=1.0):
    """Logits, and labels drawn from softmax(logits / temperature): the model is calibrated at that temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(rows, classes))
    chances = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (rng.random((rows, 1)) > chances).sum(axis=1)


# --- reliability -------------------------------------------------------------------------------------------


def test_reliability_by_hand():
    # Most confident first on purpose: bins depend on confidence, not on row order.
    table = calibration.reliability(*two_class([0.95, 0.85, 0.75, 0.6, 0.55, 0.65], [1, 1, 0, 1, 0, 0]), bins=2)
    assert table["rows"].tolist() == [3, 3]
    assert table["confidence"].tolist() == pytest.approx([0.6, 0.85])
    assert table["accuracy"].tolist() == pytest.approx([1 / 3, 2 / 3])
    for hits, row in zip([1, 2], table.itertuples(), strict=True):
        assert (row.low, row.high) == pytest.approx(proportion_confint(hits, 3, method="wilson"))


def test_rows_of_equal_confidence_share_a_bin():
    confidence = [0.6] * 5 + [0.7] * 3 + [0.8, 0.9]
    table = calibration.reliability(*two_class(confidence, [1, 0] * 5), bins=5)
    assert table["rows"].tolist() == [5, 3, 2]
    assert table["confidence"].tolist() == pytest.approx([0.6, 0.7, 0.85])
    assert table["accuracy"].tolist() == pytest.approx([3 / 5, 1 / 3, 1 / 2])
    same = calibration.reliability(*two_class([0.75] * 8, [1, 1, 1, 0] * 2))
    assert same[["rows", "confidence", "accuracy"]].to_numpy().tolist() == [[8, 0.75, 0.75]]


@pytest.mark.parametrize(("rows", "bins"), [(100, 10), (240, 12), (35, 5), (10, 10)])
def test_bins_are_scikit_learns_quantile_bins(rows, bins):
    logits, labels = draw(rows, rows)
    confidence = metrics.probabilities(logits).max(axis=1)
    assert len(np.unique(confidence)) == rows
    accuracy, mean = calibration_curve(logits.argmax(axis=1) == labels, confidence, n_bins=bins, strategy="quantile")
    table = calibration.reliability(logits, labels, bins=bins)
    assert table["rows"].tolist() == [rows // bins] * bins
    assert table["confidence"].to_numpy() == pytest.approx(mean)
    assert table["accuracy"].to_numpy() == pytest.approx(accuracy)


# --- calibration error -------------------------------------------------------------------------------------


def test_the_calibration_error_by_hand():
    # Bins {0.55, 0.6, 0.65}, {0.75, 0.85, 0.95}: gaps 1/3 - 0.6 and 2/3 - 0.85, three rows each.
    logits, labels = two_class([0.95, 0.85, 0.75, 0.6, 0.55, 0.65], [1, 1, 0, 1, 0, 0])
    table = calibration.calibration_error(logits, labels, bins=2)
    assert table.loc["ece", "value"] == pytest.approx((0.6 - 1 / 3) / 2 + (0.85 - 2 / 3) / 2)
    # Bins are weighted by their rows: 6 rows with a gap of 0.1, 2 with one of 0.4.
    logits, labels = two_class([0.6] * 6 + [0.9] * 2, [1, 1, 1, 0, 0, 0, 1, 0])
    assert calibration.calibration_error(logits, labels, bins=4).loc["ece", "value"] == pytest.approx(
        6 / 8 * 0.1 + 2 / 8 * 0.4
    )


def test_what_chance_makes_of_a_calibrated_models_error_by_hand():
    # 4 rows of confidence 0.5: |hits - 2| / 4 is 0, 1/4, 1/2 with probability 6, 8, 2 sixteenths.
    logits, labels = np.zeros((4, 2)), np.array([0, 0, 1, 1])
    row = calibration.calibration_error(logits, labels, n_draws=20_000).loc["ece_by_chance"]
    assert row["value"] == pytest.approx((8 / 4 + 2 / 2) / 16, abs=0.004)
    assert (row["low"], row["high"]) == (0, 0.5)


def test_a_calibrated_model_shows_the_error_that_chance_makes():
    logits, _ = draw(0, 300)
    table = calibration.calibration_error(logits, np.zeros(300, int), bins=5, n_draws=4000)
    by_chance = table.loc["ece_by_chance"]
    # 5000 test sets of a calibrated model: only the labels are redrawn, and their errors computed here.
    confidence = np.sort(softmax(logits, axis=1).max(axis=1))
    right = np.random.default_rng(1).random((5000, 300)) < confidence
    errors = np.abs((right - confidence).reshape(5000, 5, 60).mean(axis=2)).mean(axis=1)
    inside = np.mean((by_chance["low"] <= errors) & (errors <= by_chance["high"]))
    assert 0.94 <= inside <= 0.97  # 95% by construction; slightly more because of the bins' mean confidences
    assert by_chance["value"] == pytest.approx(errors.mean(), rel=0.03)


def test_the_bounds_of_a_calibrated_models_error_begin_at_zero():
    # By construction 97.5% of calibrated models' bounds reach down to 0 (96% of 250 did).
    tables = [calibration.calibration_error(*draw(seed, 200), bins=5, n_draws=100) for seed in range(25)]
    low = np.array([table.loc["ece", "low"] for table in tables])
    assert np.mean(low == 0) >= 0.9
    assert low.max() < 0.02
    assert np.mean([table.loc["ece", "value"] for table in tables]) > 0.03  # while the plain estimate is never 0


def test_the_bounds_of_an_overconfident_models_error_hold_the_true_one():
    held = []
    for seed in range(25):
        logits, labels = draw(seed, 400, temperature=2)
        chances, predicted = metrics.probabilities(logits), logits.argmax(axis=1)
        order = np.argsort(chances.max(axis=1))
        gap = chances.max(axis=1) - softmax(logits / 2, axis=1)[np.arange(400), predicted]
        true = np.abs(gap[order].reshape(5, 80).mean(axis=1)).mean()
        row = calibration.calibration_error(logits, labels, bins=5, n_draws=100).loc["ece"]
        assert row["low"] > 0  # 400 rows are enough to show it
        held.append(row["low"] <= true <= row["high"])
    assert np.mean(held) >= 0.8  # 84-91% in 700 others, short of 95: the gaps it scales are estimates


def test_eight_labels_that_are_always_the_same_say_no_more_than_one(rng):
    yes = 2 * rng.normal(size=300)
    logits = np.column_stack([np.zeros(300), yes])
    labels = (rng.random(300) < 1 / (1 + np.exp(-0.6 * yes))).astype(int)
    one = calibration.calibration_error(logits, labels)
    eight = calibration.calibration_error(np.repeat(logits[:, None], 8, axis=1), np.repeat(labels[:, None], 8, axis=1))
    assert eight.value["ece"] == pytest.approx(one.value["ece"])
    assert eight.to_numpy() == pytest.approx(one.to_numpy(), abs=0.015)
    assert one.loc["ece", "high"] - one.loc["ece", "low"] > 0.06


# --- temperature -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    assert calibration.fit_temperature(*draw(0, 20_000, temperature=temperature)) == pytest.approx(
        temperature, rel=0.03
    )


@pytest.mark.parametrize(("seed", "rows", "classes"), [(0, 50, 2), (1, 500, 3), (2, 30, 5)])
def test_the_temperature_is_that_of_a_gradient_search_and_of_a_grid(seed, rows, classes):
    logits, labels = draw(seed, rows, classes=classes, temperature=1.7)
    ours = calibration.fit_temperature(logits, labels)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)  # one over the temperature: a convex problem
    optimizer = torch.optim.LBFGS([scale], lr=0.5, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(torch.tensor(logits) * scale, torch.tensor(labels))
        value.backward()
        return value

    optimizer.step(loss)
    assert ours == pytest.approx(1 / scale.item(), rel=1e-4)
    grid = np.geomspace(0.05, 20, 4001)
    losses = [
        -np.log(softmax(logits / t, axis=1)[np.arange(rows), labels]).mean() if 0.2 < t < 20 else np.inf for t in grid
    ]
    assert ours == pytest.approx(grid[np.argmin(losses)], rel=0.002)


def test_rows_that_are_all_right_have_no_temperature():
    logits = np.array([[3.0, 0], [0, 2], [1, 0]])
    with pytest.warns(UserWarning, match="all 3 rows are right"):
        assert calibration.fit_temperature(logits, np.array([0, 1, 0])) == 1.0


def test_a_temperature_changes_the_confidence_and_never_the_class():
    logits, labels = draw(4, 400, temperature=3)
    temperature = calibration.fit_temperature(logits, labels)
    cooled = logits / temperature
    assert temperature > 2
    assert (cooled.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert metrics.probabilities(cooled).max(axis=1).mean() < metrics.probabilities(logits).max(axis=1).mean() - 0.1
    before, after = (calibration.calibration_error(x, labels, n_draws=20).loc["ece", "value"] for x in (logits, cooled))
    assert after < before / 2


# --- risk and coverage -------------------------------------------------------------------------------------


def test_risk_and_coverage_by_hand():
    table = calibration.risk_coverage(*two_class([0.7, 0.9, 0.6, 0.8], [0, 1, 1, 1]))
    assert table["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert table["confidence"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert table["risk"].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4])


def test_rows_of_equal_confidence_share_their_risk_in_any_order():
    confidence, correct = np.array([0.9, 0.75, 0.75, 0.75, 0.75]), np.array([1, 0, 1, 1, 0])
    table = calibration.risk_coverage(*two_class(confidence, correct))
    assert table["risk"].tolist() == pytest.approx([0, 0.5 / 2, 1 / 3, 1.5 / 4, 2 / 5])
    for order in ([1, 4, 0, 2, 3], [3, 2, 4, 1, 0]):
        again = calibration.risk_coverage(*two_class(confidence[order], correct[order]))
        assert again.equals(table)


def test_the_area_is_the_mean_risk_and_its_interval_holds_it():
    logits, labels = draw(0, 400)
    row = calibration.risk_coverage_area(logits, labels, n_resamples=300).loc["aurc"]
    table = calibration.risk_coverage(logits, labels)
    assert row["value"] == pytest.approx(table["risk"].mean())
    assert row["low"] < row["value"] < row["high"]
    by_hand = calibration.risk_coverage_area(*two_class([0.7, 0.9, 0.6, 0.8], [0, 1, 1, 1]), n_resamples=20)
    assert by_hand.loc["aurc", "value"] == pytest.approx((1 / 3 + 1 / 4) / 4)


def test_confidence_that_says_nothing_has_the_error_rate_as_its_area():
    useless = two_class([0.8] * 50, [0] * 10 + [1] * 40)
    assert calibration.risk_coverage_area(*useless, n_resamples=20).loc["aurc", "value"] == pytest.approx(0.2)
    # The best order answers the 40 right ones first: mean over k = 1…10 of k / (40 + k), a fifth of the rows.
    best = two_class([*np.linspace(0.51, 0.6, 10), *np.linspace(0.7, 0.9, 40)], [0] * 10 + [1] * 40)
    area = calibration.risk_coverage_area(*best, n_resamples=20).loc["aurc", "value"]
    assert area == pytest.approx(sum(k / (40 + k) for k in range(1, 11)) / 50)


# --- mistakes ----------------------------------------------------------------------------------------------


def test_confident_mistakes_are_the_wrong_rows_most_confident_first():
    logits = np.array([[2.0, 0, 0], [0, 5, 0], [0, 0, 3], [4, 0, 0], [0, 0, 1]])
    labels, texts, names = np.array([1, 1, 0, 2, 2]), list("abcde"), ["x", "y", "z"]
    table = calibration.confident_mistakes(logits, labels, texts, names=names)
    assert table.index.tolist() == [3, 2, 0]
    assert table.index.name == "row"
    assert table["label"].tolist() == ["z", "x", "y"]
    assert table["predicted"].tolist() == ["x", "z", "x"]
    assert table["text"].tolist() == ["d", "c", "a"]
    assert table["confidence"].tolist() == pytest.approx([np.exp(k) / (np.exp(k) + 2) for k in (4, 3, 2)])
    two = calibration.confident_mistakes(logits, labels, texts, names=names, count=2)
    assert two.index.tolist() == [3, 2]
    assert calibration.confident_mistakes(logits, logits.argmax(axis=1), texts, names=names).empty


@pytest.mark.parametrize(
    "function",
    [
        calibration.reliability,
        calibration.calibration_error,
        calibration.fit_temperature,
        calibration.risk_coverage,
        calibration.risk_coverage_area,
        lambda logits, labels: calibration.confident_mistakes(logits, labels, ["a"] * 4, names=["x", "y"]),
    ],
)
def test_predictions_that_do_not_fit_are_refused(function):
    with pytest.raises(DataError, match="do not fit"):
        function(np.zeros((3, 2)), np.zeros(4, int))
