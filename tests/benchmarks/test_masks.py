"""The environments of the benchmark keep their promises, and a measurement runs."""

import numpy as np
import pytest

from benchmarks import masks
from benchmarks.masks import CASES, FastIdentity, ManyActions, measure


@pytest.mark.parametrize("name", CASES)
def test_environments_have_masks(name: str) -> None:
    env = CASES[name]()
    env.reset(seed=0)
    for _ in range(5):
        mask = env.get_wrapper_attr("action_masks")()
        assert mask.dtype == np.bool_
        assert mask.any()
        env.step(int(np.flatnonzero(mask)[0]))


def test_the_identity_allows_the_right_action_and_as_many_as_sb3_contribs() -> None:
    env = FastIdentity(70, 55)
    for _ in range(50):
        env.reset()
        assert env.action_masks().sum() == 15
        assert env.action_masks()[env.state]


def test_a_measurement_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "N_STEPS", 128)
    speeds, ratio, overhead = measure(ManyActions, rounds=1)
    assert min(speeds) > 0.0
    assert ratio > 0.0
    assert overhead > -1.0
