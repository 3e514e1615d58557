from __future__ import annotations

import numpy as np
import pytest

from selfscale.nn.optimizers import learning_rates


def test_learning_rates_rise_linearly_and_decay_to_zero():
    rates = learning_rates(100, 0.01, 0.1)
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 0.001, rtol=1e-5)
    assert rates.argmax() == 9
    assert np.all(np.diff(rates[9:]) < 0)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
    assert rates[54] == pytest.approx(0.005, rel=1e-2)  # the cosine's middle
