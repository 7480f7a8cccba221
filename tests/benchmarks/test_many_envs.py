"""The toy environments of the measurement behave as SB3 expects."""

import numpy as np

from benchmarks.many_envs import Walks
from sb3_trpo import TRPO


def test_walks_end_one_by_one_and_can_be_learned_from() -> None:
    env = Walks(5, length=3)
    env.reset()
    ended = np.zeros(5, dtype=int)
    for _ in range(6):
        observations, _, dones, infos = env.step(np.ones((5, 2), dtype=np.float32))
        ended += dones
        assert [bool(info) for info in infos] == dones.tolist()
        assert isinstance(observations, np.ndarray)
        assert not observations[dones].any()
    assert ended.tolist() == [2] * 5
    model = TRPO("MlpPolicy", Walks(16, length=3), n_steps=8, batch_size=32, device="cpu").learn(128)
    assert model.last_step is not None
