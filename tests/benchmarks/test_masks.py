"""The environments of the benchmark keep their promises, and a measurement runs."""

from typing import Any

import numpy as np
import pytest
import torch as th

from benchmarks import masks
from benchmarks.masks import CASES, AllAllowed, FastIdentity, ManyActions, measure
from sb3_trpo import TRPO, MaskableTRPO


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
    speeds, ratio, longer, overhead = measure(ManyActions, rounds=1)
    assert min(speeds) > 0.0
    assert ratio > 0.0
    assert min(longer, overhead) > -1.0


@pytest.mark.parametrize("source", ["info", "env_method"])
def test_a_run_where_all_is_allowed_is_that_without_masks(source: str) -> None:
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 64, "seed": 0}
    masked = MaskableTRPO("MlpPolicy", AllAllowed(ManyActions(20)), mask_source=source, **settings).learn(128)
    plain = TRPO("MlpPolicy", AllAllowed(ManyActions(20)), **settings).learn(128)
    assert masked.trained_with_masks
    for one, other in zip(masked.policy.parameters(), plain.policy.parameters(), strict=True):
        assert th.equal(one, other)
