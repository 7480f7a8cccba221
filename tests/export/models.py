"""Small models to export, and how their files are run."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_trpo import TRPO
from tests.helpers import perturb
from tests.toy_envs import ACTIONS, OBSERVATIONS, VECTOR, RandomEnv

DEFAULTS = {"policy": "MlpPolicy", "observations": "vector", "actions": "box"}


def make_model(**kwargs: Any) -> TRPO:
    """A model away from the near-zero initialisation of its last layer, so that actions differ between observations."""
    policy, observations, actions = (kwargs.pop(name, default) for name, default in DEFAULTS.items())
    env = kwargs.pop("env", None) or RandomEnv(OBSERVATIONS[observations], ACTIONS[actions])
    settings: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "seed": 0, "device": "cpu"}
    model = TRPO(policy, env, **settings, **kwargs)
    perturb([model.policy.action_net.weight], 1.0)
    return model


def normalized_env(env: RandomEnv | None = None, **kwargs: Any) -> VecNormalize:
    """An environment with statistics that are not those at the start."""
    wrapped = VecNormalize(DummyVecEnv([lambda: env or RandomEnv(VECTOR)]), **{"norm_reward": False, **kwargs})
    shift_statistics(wrapped)
    return wrapped


def shift_statistics(wrapped: VecNormalize, mean: float = 0.3, var: float = 0.2) -> None:
    statistics: Any = wrapped.obs_rms
    for each in statistics.values() if isinstance(statistics, dict) else [statistics]:
        each.mean, each.var, each.count = np.full_like(each.mean, mean), np.full_like(each.var, var), 100.0


def sampled(space: spaces.Space[Any], n: int) -> Any:
    """Observations of a space: shape (n, ...), or a dict of such."""
    space.seed(1)
    rows = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in space.spaces}
    return np.stack([np.asarray(row) for row in rows])


def onnx_session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run_file(path: Path, observations: Any) -> list[np.ndarray]:
    """Run an exported file on observations of the environment, a dict of which has its keys in the names of the inputs."""
    named = observations if isinstance(observations, dict) else {None: observations}
    values = {"observation" if key is None else f"observation.{key}": part for key, part in named.items()}
    if path.suffix == ".onnx":
        found: list[np.ndarray] = onnx_session(path).run(None, values)
        return found
    return [part.detach().numpy() for part in th.export.load(path).module()(*map(th.as_tensor, values.values()))]


def assert_same_actions(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if np.issubdtype(found.dtype, np.integer):
        assert np.array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
