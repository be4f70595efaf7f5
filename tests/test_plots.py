import re

import nbformat
import numpy as np
import pandas as pd
import pytest

from bert_helpers.evaluation import calibration, plots
from bert_helpers.report import notebook_pages


@pytest.mark.parametrize("epochs", [1, 2, 3, 6, 12, 40])
def test_the_epochs_of_learning_curves_are_whole_and_were_all_trained(epochs):
    columns = ("train_loss", "validation_loss", "train_f1", "validation_f1")
    history = pd.DataFrame(dict.fromkeys(columns, np.linspace(0, 1, epochs)), index=range(1, epochs + 1))
    for figure in (plots.learning_curves(history), plots.small_multiples({"a": history})):
        axis = figure.axes[0]
        first, last = axis.get_xlim()
        ticks = [tick for tick in axis.get_xticks() if first <= tick <= last]
        assert ticks
        assert set(ticks) <= set(range(epochs <= 18, epochs + 1))  # the margin of a long axis extends below 0


def test_a_reliability_diagram_has_the_bins_of_two_tables():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    logits = np.stack([1.0 - labels, labels], axis=1) + rng.normal(size=(200, 2))
    tables = {f"$times {factor}": calibration.reliability(factor * logits, labels) for factor in (1, 2)}
    figure = plots.reliability_diagram(tables)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names[1:] == [rf"\$times {factor}, 95% intervals" for factor in (1, 2)]
    for container, table in zip(axis.containers, tables.values(), strict=True):
        points = container.lines[0].get_xydata()
        assert np.allclose(points, table[["confidence", "accuracy"]])
        assert axis.get_xlim()[0] < points[:, 0].min()
        assert axis.get_ylim()[0] <= table.low.min()


def test_resamples_show_the_measured_value_between_the_ends_of_the_interval():
    values = np.random.default_rng(0).binomial(50, 0.8, 500) / 50
    (axis,) = plots.resamples(values, value=0.8, low=0.7, high=0.9, name="accuracy").axes
    assert [line.get_xdata()[0] for line in axis.lines] == [0.8, 0.7, 0.9]
    assert sum(patch.get_height() for patch in axis.patches) == 500


def test_each_label_s_threshold_is_marked_on_its_curve():
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 0]] * 5)
    logits = np.where(labels == 1, [1.0, -2.0], [-1.0, -4.0])
    _, axis, unused = plots.label_thresholds(logits, labels, [0.5, 0.05], ["a", "$b"]).axes
    curve, dot, _ = axis.lines
    assert dot.get_xydata().tolist() == [[0.05, 1.0]]
    assert curve.get_ydata()[50:].max() == 0  # above a half, "b" is never predicted
    assert axis.get_title() == r"\$b"
    assert not unused.get_visible()


def test_residuals_are_shown_against_the_prediction():
    _, right = plots.residuals([1.0, 3.0], [2.0, 2.5]).axes
    assert right.collections[0].get_offsets().tolist() == [[1.0, 1.0], [3.0, -0.5]]


def test_risk_and_coverage_are_compared_with_the_error_rate_of_all_rows():
    logits = np.array([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]])
    (axis,) = plots.risk_coverage({"model": calibration.risk_coverage(logits, np.array([0, 0, 0, 1]))}).axes
    assert axis.lines[1].get_ydata()[0] == 0.25


def test_metrics_by_threshold():
    curves = pd.DataFrame({"all": [0.5, 0.7, 0.6], "with an answer": [0.0, 0.6, 0.9]}, index=[-2.0, 0.0, 2.0])
    (axis,) = plots.by_threshold(curves, chosen=0.25, name="null score difference").axes
    assert [line.get_label() for line in axis.lines] == ["all", "with an answer", "chosen: 0.25"]
    assert axis.lines[1].get_ydata().tolist() == [0.0, 0.6, 0.9]
    assert axis.lines[2].get_xdata()[0] == 0.25


def test_a_figure_says_what_it_shows_and_a_page_keeps_that(tmp_path):
    figures = {
        "accuracy of the resampled rows; measured: 0.800": plots.resamples(
            [0.7, 0.9], value=0.8, low=0.7, high=0.9, name="accuracy"
        ),
        "loss; epoch; &lt;b&gt;; train; validation": plots.small_multiples(
            {"<b>": pd.DataFrame({"train_loss": [1.0], "validation_loss": [1.0]}, index=[1])}
        ),
    }
    outputs = []
    for figure in figures.values():
        data, metadata = figure._repr_mimebundle_()
        outputs.append(nbformat.v4.new_output("display_data", {"image/png": "aGk=", **data}, metadata=metadata))
    cell = nbformat.v4.new_code_cell("draw()", outputs=outputs)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks/a.ipynb")
    (page,) = notebook_pages.write_pages(tmp_path)
    for words in figures:
        assert re.search(f'<img [^>]*alt="[^"]*{re.escape(words)}', page.page.read_text())


def test_a_table_of_sentences_is_cut_between_words():
    table = pd.DataFrame({"text": ["three short words", "one two three four"], "confidence": [0.98765, 0.00008]})
    shown = plots.prose(table, width=17).to_html()
    for cell in ("three short words", "one two three …", "0.988", "8e-05"):
        assert f">{cell}<" in shown
    assert plots.prose(table, width=17).to_html() == shown
    assert repr(plots.prose(table, width=17)).splitlines()[1].split() == ["0", "three", "short", "words", "0.988"]


def test_small_multiples_share_a_scale():
    curves = pd.DataFrame({"train_loss": [0.01] * 2, "validation_loss": [0.6, 0.5]}, index=[1, 2])
    figure = plots.small_multiples(dict.fromkeys("abcd", curves))
    assert [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 2
    assert len({axis.get_ylim() for axis in figure.axes[:4]}) == 1


def test_learning_curves_mark_the_best_epoch_and_what_guessing_reaches():
    columns = {f"{split}_{name}": [0.7, 0.4, 0.6] for split in ("train", "validation") for name in ("loss", "f1")}
    history, best = pd.DataFrame(columns, index=[1, 2, 3]), "lowest validation loss: epoch 2"
    for chance, guessing in (({"loss": 0.693}, "loss 0.69"), ({"loss": 0.693, "f1": 0.5}, "loss 0.69, F1 0.50")):
        figure = plots.learning_curves(history, chance=chance)
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == ["train", "validation", f"guessing: {guessing}", best]
        assert figure.axes[0].get_ylim()[0] == 0


def test_a_confusion_of_types_leaves_out_what_is_no_entity_and_says_how_much():
    gold, found = [["B-PER", "O", "O"], ["O", "B-LOC"]], [["B-PER", "O", "O"], ["B-PER", "O"]]
    (axis,) = plots.type_confusion(gold, found).axes
    cells = [text.get_text() for text in axis.texts]
    assert cells == ["0", "0", "1", "0", "1", "0", "0", "1", ""]  # LOC, PER, O by LOC, PER, O
    assert axis.get_title() == "grey: O taken for O, 2 words"
