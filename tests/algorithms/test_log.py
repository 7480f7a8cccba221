"""The log of an update: numbers for every logger, texts for SB3's own only."""

from typing import Any

import pytest
from stable_baselines3.common.logger import Logger, configure

from sb3_trpo import TRPO
from sb3_trpo.algorithms.log import ADVICE
from sb3_trpo.step.report import Outcome
from tests.toy_envs import ConstantEnv, RandomEnv

SMALL: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "seed": 0}


class Averaging(Logger):
    """Averages whatever is recorded, as loggers of other libraries do."""

    def __init__(self) -> None:
        super().__init__(folder=None, output_formats=[])
        self.means: dict[str, float] = {}

    def dump(self, step: int = 0) -> None:
        for key, value in self.name_to_value.items():
            self.means[key] = (self.means.get(key, 0.0) + value) / 2
        super().dump(step)


@pytest.mark.parametrize("env", [RandomEnv(), ConstantEnv()])
def test_a_logger_that_averages_gets_numbers_alone(env: RandomEnv) -> None:
    model = TRPO("MlpPolicy", env, **SMALL)
    logger = Averaging()
    model.set_logger(logger)
    for _ in range(3):
        model.learn(64, reset_num_timesteps=False)
        logger.dump()
    assert "train/kl_divergence_loss" in logger.means
    assert not {"train/outcome", "train/cg_outcome"} & logger.means.keys()


def logged(env: RandomEnv, **settings: Any) -> dict[str, Any]:
    model = TRPO("MlpPolicy", env, **{**SMALL, **settings})
    model.set_logger(configure(None, []))
    model.learn(64)
    return dict(model.logger.name_to_value)


def test_the_solvers_outcome_is_logged() -> None:
    assert logged(RandomEnv())["train/cg_outcome"] == "tolerance reached"
    assert logged(RandomEnv(), cg_max_steps=1)["train/cg_outcome"] == "steps used up"
    assert logged(ConstantEnv())["train/cg_outcome"] == "not asked"


def test_advice_follows_the_outcome() -> None:
    values = logged(RandomEnv(), line_search_max_iter=1, line_search_accept_ratio=1.0)
    assert values["train/outcome"] == f"{Outcome.LINE_SEARCH_FAILED.value}; raise line_search_max_iter"
    assert set(ADVICE) < set(Outcome)
