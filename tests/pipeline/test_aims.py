"""What a minimization needs before it begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import new_trainer
from selfscale.errors import UserError
from selfscale.nn.input_pipeline import Split
from selfscale.pipeline.aims import check_evidence
from selfscale.search_config import Acceptance, Minimization


def test_many_crops_of_one_photograph_decide_nothing_with_confidence(
    train_split: Split, validation_split: Split
):
    one = replace(validation_split, photograph=np.zeros(len(validation_split.images), int))
    trainer = new_trainer(train_split, one)
    with pytest.raises(UserError, match=r"one photograph .* minimization\.acceptance\.rule"):
        check_evidence(trainer, Minimization())
    check_evidence(trainer, Minimization(acceptance=Acceptance(rule="threshold")))
    check_evidence(new_trainer(train_split, validation_split), Minimization())
