"""What environments return in other libraries' arrays is brought into NumPy, or refused by its type."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from sb3_trpo import TRPO
from sb3_trpo.rollout.arrays import in_numpy
from tests.toy_envs import VECTOR, RandomEnv

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "seed": 0, "device": "cpu"}


class Foreign:
    """An array of another library, like one of JAX: immutable, and NumPy reads it through its protocol."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        read_only = self._values.view()
        read_only.flags.writeable = False
        return np.array(read_only, dtype=dtype) if copy else read_only


class Returning(VecEnvWrapper):
    """Environments whose results are arrays of another kind."""

    def __init__(self, kind: Any, observation_space: spaces.Space[Any] = VECTOR, without: tuple[str, ...] = ()) -> None:
        env = DummyVecEnv([lambda: RandomEnv(observation_space, length=5, truncate=True) for _ in range(2)])
        super().__init__(env)
        self._kind, self._without = kind, without

    def _make(self, name: str, value: Any) -> Any:
        if name in self._without:
            return value
        return {key: self._kind(part) for key, part in value.items()} if isinstance(value, dict) else self._kind(value)

    def reset(self) -> Any:
        return self._make("observations", self.venv.reset())

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self._make("observations", info["terminal_observation"])
        rewards, dones = self._make("rewards", rewards), self._make("dones", dones)
        return self._make("observations", observations), rewards, dones, infos


KINDS = {"array": np.array, "jax": Foreign, "torch": th.as_tensor, "list": lambda values: np.asarray(values).tolist()}


@pytest.mark.parametrize("kind", ["jax", "torch", "list"])
@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_other_arrays_train_the_same_policy(kind: str, policy: str) -> None:
    space: Any = VECTOR if policy == "MlpPolicy" else spaces.Dict({"a": VECTOR, "b": spaces.Box(-1, 1, (2,), np.float32)})
    trained = [TRPO(policy, Returning(KINDS[name], space), **SMALL).learn(64) for name in ("array", kind)]
    for expected, found in zip(*(model.policy.parameters() for model in trained), strict=True):
        assert th.equal(found, expected)
    assert isinstance(trained[1]._last_obs, dict if policy == "MultiInputPolicy" else np.ndarray)


@pytest.mark.parametrize(("quantity", "without"), [("observations", ()), ("rewards", ("observations",))])
def test_what_numpy_cannot_read_is_refused_by_its_type(quantity: str, without: tuple[str, ...]) -> None:
    model = TRPO("MlpPolicy", Returning(lambda values: {"of": values}.keys(), without=without), **SMALL)
    with pytest.raises(TypeError, match=f"the {quantity} are a dict_keys, of which NumPy makes no array of numbers"):
        model.learn(64)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ([[1.0, 2.0], [1.0]], "list"),
        (["a", "b"], "list"),
        (th.ones(2, dtype=th.bfloat16), "torch.Tensor of dtype torch.bfloat16"),
        (np.array([None, 1.0]), "numpy.ndarray of dtype object"),
        (None, "NoneType"),
    ],
)
def test_values_without_numbers_are_refused(value: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"the rewards are a {name}, of which NumPy"):
        in_numpy("rewards", value)
    with pytest.raises(TypeError, match=f"the observations 'x' are a {name}, of which NumPy"):
        in_numpy("observations", {"x": value})


def test_arrays_stay_the_same_objects_and_others_are_copied() -> None:
    array = np.ones(3)
    assert in_numpy("rewards", array) is array
    both = {"a": array, "b": array}
    assert in_numpy("observations", both) is both
    tensor = th.ones(3, requires_grad=True)
    copied = in_numpy("rewards", tensor)
    copied[0] = 5.0
    assert tensor.tolist() == [1.0, 1.0, 1.0]
