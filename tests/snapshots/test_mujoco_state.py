"""Every array of a simulation is restored, byte for byte, in the same simulation or in a new one."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_trpo.snapshots.mujoco_state import MujocoLayer

IN_ARENA = (
    "efc_",
    "iefc_",
    "efm_",
    "contact",
    "map_",
    "tree_island",
    "dof_island",
    "island",
    "ifrc",
    "tendon_efcadr",
    "iacc",
    "iLD",
    "iM",
)
"""Prefixes of arrays that MuJoCo computes anew in every step."""


def arrays(data: Any) -> dict[str, np.ndarray]:
    names = [name for name in dir(data) if not name.startswith(("_", "solver", *IN_ARENA))]
    return {name: getattr(data, name).copy() for name in names if isinstance(getattr(data, name), np.ndarray)}


def robot(name: str, n_steps: int) -> Any:
    env = gym.make(name)
    env.reset(seed=n_steps)
    env.action_space.seed(n_steps)
    for _ in range(n_steps):
        env.step(env.action_space.sample())
    return env.unwrapped


@pytest.mark.parametrize("name", ["Hopper-v5", "Humanoid-v5", "Pusher-v5"])
def test_all_arrays_are_restored(name: str) -> None:
    env = robot(name, 15)
    state = pickle.loads(pickle.dumps(MujocoLayer(env).get()))
    before = arrays(env.data)
    assert {"qpos", "qacc_warmstart", "xpos", "cfrc_ext", "subtree_com", "actuator_force"} <= before.keys()
    for other in (env, robot(name, 7)):
        layer = MujocoLayer(other)
        other.step(np.ones(other.action_space.shape))
        layer.set(state)
        after = arrays(other.data)
        assert all(np.array_equal(before[key], after[key]) for key in before)
        assert other.data.time == env.data.time
        assert other.data.ncon == 0


def test_a_state_is_restored_after_the_model_is_loaded_anew() -> None:
    env = robot("Hopper-v5", 5)
    layer = MujocoLayer(env)
    state = layer.get()
    env.model, env.data = env._initialize_simulation()
    layer.set(state)
    np.testing.assert_array_equal(env.data.qpos, state.data[: env.data.qpos.nbytes].view(np.float64))


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="`state` must belong to the MuJoCo model of HopperEnv, not to another"):
        MujocoLayer(robot("Hopper-v5", 1)).set(MujocoLayer(robot("Ant-v5", 1)).get())
