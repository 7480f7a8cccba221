"""The outcomes that need no step."""

from collections.abc import Callable

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_trpo import TRPO
from sb3_trpo.step.report import Outcome
from tests.toy_envs import RandomEnv


class Still(RandomEnv):
    """One step an episode, always the same observation and reward: nothing to learn from."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(-1.0, 1.0, (3,), dtype=np.float32), spaces.Discrete(2), length=1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[np.ndarray, dict[str, object]]:
        super().reset(seed=seed)
        return np.zeros(3, dtype=np.float32), {}

    def step(self, action: object) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        super().step(action)
        return np.zeros(3, dtype=np.float32), 1.0, True, False, {}


def test_trpo_reports_the_outcomes_that_need_no_step() -> None:
    def outcome(env: RandomEnv, freeze: bool = False, target_kl: float | Callable[[float], float] = 0.01) -> Outcome:
        model = TRPO("MlpPolicy", env, n_steps=16, batch_size=16, n_critic_updates=1, seed=0, target_kl=target_kl)
        for name, parameter in model.policy.named_parameters():
            parameter.requires_grad_("value" in name or not freeze)
        before = {name: value.clone() for name, value in model.policy.state_dict().items() if "value" not in name}
        model.learn(16)
        assert all(th.equal(model.policy.state_dict()[name], value) for name, value in before.items())
        assert model.last_step is not None
        return model.last_step.outcome

    assert outcome(Still()) is Outcome.ZERO_SIGNAL
    assert outcome(RandomEnv(), freeze=True) is Outcome.NO_PARAMETERS
    assert outcome(RandomEnv(), target_kl=lambda _: 0.0) is Outcome.NO_TRUST_REGION
