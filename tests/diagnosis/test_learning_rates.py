import numpy as np
import pandas as pd
import pytest

from bert_helpers.diagnosis import learning_rates
from bert_helpers.evaluation import plots


def test_the_range_test_leaves_the_model_alone_and_rises(trainer):
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    table = learning_rates.learning_rate_range(trainer, lowest=1e-6, highest=10.0, steps=30)
    assert all(tensor.equal(before[name]) for name, tensor in trainer.model.state_dict().items())
    np.testing.assert_allclose(table.learning_rate.iloc[1] / table.learning_rate.iloc[0], (10 / 1e-6) ** (1 / 29))
    assert table.smoothed.iloc[0] == pytest.approx(table.loss.iloc[0])
    assert plots.learning_rate_range(table, chosen=1e-3).axes[0].get_xscale() == "log"


def test_a_suggested_learning_rate():
    rates = np.geomspace(1e-6, 1, 7)
    table = pd.DataFrame({"learning_rate": rates, "smoothed": [0.7, 0.69, 0.6, 0.4, 0.3, 0.9, np.nan]})
    assert learning_rates.suggested_learning_rate(table) == pytest.approx(1e-3)
    assert learning_rates.suggested_learning_rate(table.assign(smoothed=0.7)) is None
