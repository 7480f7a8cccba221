"""Hidden state is restored, refused by name, or found by the replay check when the model is made."""

import itertools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces, wrappers
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_trpo import VineTRPO, deepcopy_state, register_simulator
from sb3_trpo.snapshots.replay_check import check_replay
from sb3_trpo.snapshots.simulator import Simulator
from tests.helpers import generator_states

SMALL: dict[str, Any] = {"n_steps": 24, "batch_size": 24, "n_branch_states": 6, "branch_length": 5, "seed": 0}


class WithReward(CartPoleEnv):
    """Replaces the reward of CartPole by a bonus."""

    def bonus(self) -> float:
        raise NotImplementedError

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)  # type: ignore[no-untyped-call]
        return observation, self.bonus(), *rest


def make_noise() -> Callable[[], float]:
    count = 0.0

    def noise() -> float:
        nonlocal count
        count += 1.0
        return count

    return noise


class CountsInAClosure(WithReward):
    def __init__(self) -> None:
        super().__init__()
        self.bonus = make_noise()  # type: ignore[method-assign]


class CountsInItsClass(WithReward):
    count = 0

    def bonus(self) -> float:
        type(self).count += 1
        return float(self.count)


class ListInItsClass(WithReward):
    seen: list[int] = []  # noqa: RUF012

    def bonus(self) -> float:
        self.seen.append(1)
        return float(len(self.seen))


class Learns(WithReward):
    """Has a network that every step changes and that ``get_state`` leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.model = th.nn.BatchNorm1d(1)

    def get_state(self) -> Any:
        return self.state, self.steps_beyond_terminated

    def set_state(self, state: Any) -> None:
        self.state, self.steps_beyond_terminated = state

    def bonus(self) -> float:
        batches: Any = self.model.num_batches_tracked
        batches += 1
        return float(batches)


class ForgetsAnAttribute(Learns):
    def bonus(self) -> float:
        self.n = getattr(self, "n", 0.0) + 1.0
        return self.n


class GivesOutItsState(Learns):
    """Changes the result of ``get_state`` in later steps."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[int] = []

    def get_state(self) -> Any:
        return self.state, self.steps_beyond_terminated, self.history

    def set_state(self, state: Any) -> None:
        self.state, self.steps_beyond_terminated, self.history = state

    def bonus(self) -> float:
        self.history.append(1)
        return float(len(self.history))


class ResetsElsewhere(WithReward):
    """Has hidden state that changes only at a reset."""

    resets = 0

    def bonus(self) -> float:
        return float(self.resets)

    def reset(self, **kwargs: Any) -> Any:
        type(self).resets += 1
        return super().reset(**kwargs)


class ReadsOldContacts(AntEnv):
    """Rewards the number of contacts that the last step left behind."""

    def step(self, action: Any) -> Any:
        n_contacts = self.data.ncon
        observation, _, *rest = super().step(action)  # type: ignore[no-untyped-call]
        return observation, float(n_contacts), *rest


class CountingWrapper(wrappers.TransformReward[Any, Any]):
    def __init__(self, env: gym.Env[Any, Any]) -> None:
        numbers = itertools.count()
        super().__init__(env, lambda reward: float(next(numbers)))


HIDDEN: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "CountsInAClosure": CountsInAClosure,
    "CountsInItsClass": CountsInItsClass,
    "ListInItsClass": ListInItsClass,
    "Learns": Learns,
    "ForgetsAnAttribute": ForgetsAnAttribute,
    "GivesOutItsState": GivesOutItsState,
    "ResetsElsewhere": ResetsElsewhere,
    "CartPoleEnv": lambda: CountingWrapper(CartPoleEnv()),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_state_is_found_when_the_model_is_made(name: str) -> None:
    env = DummyVecEnv([lambda: gym.make("CartPole-v1"), HIDDEN[name]])
    before = generator_states()
    message = (
        rf"environment 1, [\w.]*{name}, does not repeat itself.* the reward was .*, then .*get_state\(\).*register_simulator"
    )
    model = VineTRPO("MlpPolicy", make_vec_env("CartPole-v1", 2), **SMALL)
    before = generator_states()
    with pytest.raises(ValueError, match=message):
        model._checked_simulator(env)
    assert generator_states() == before
    with pytest.raises(ValueError, match="does not repeat itself"):
        VineTRPO("MlpPolicy", env, **SMALL)
    model.set_env(env)
    with pytest.raises(ValueError, match="does not repeat itself"):
        model.learn(24)


def test_an_environment_that_reads_old_contacts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ReadsOldContacts, does not repeat itself.* the reward was"):
        VineTRPO("MlpPolicy", DummyVecEnv([ReadsOldContacts]), **SMALL)


class RandomMass(HopperEnv):
    """Draws the mass, the gravity and the time step of a robot for every episode."""

    def reset_model(self) -> Any:
        self.model.body_mass[1] = self.np_random.uniform(2.0, 4.0)
        self.model.opt.gravity[2] = self.np_random.uniform(-10.0, -9.0)
        self.model.opt.timestep = self.np_random.uniform(0.001, 0.002)
        return super().reset_model()  # type: ignore[no-untyped-call]


class GymBag(int):
    n = 0


class IntWithAttributes(WithReward):
    def __init__(self) -> None:
        super().__init__()
        self.k = GymBag(3)


class HasAModule(WithReward):
    def __init__(self) -> None:
        super().__init__()
        self.model = th.nn.Linear(2, 2)


class ResizesAnArray(WithReward):
    def __init__(self) -> None:
        super().__init__()
        self.seen = np.zeros(1)

    def bonus(self) -> float:
        self.seen = self.seen.copy()
        self.seen.resize(len(self.seen) + 1, refcheck=False)
        return float(len(self.seen))


class DrawsFromTorch(WithReward):
    def bonus(self) -> float:
        return float(th.rand(1))


class DrawsFromNumpy(WithReward):
    def bonus(self) -> float:
        return float(np.random.normal())  # noqa: NPY002


class RegisteredClosure(CountsInAClosure):
    pass


register_simulator(RegisteredClosure, *deepcopy_state)


class DrawsItsGravity(CartPoleEnv):
    def reset(self, **kwargs: Any) -> Any:
        result = super().reset(**kwargs)
        self.gravity = self.np_random.uniform(5.0, 15.0)
        return result


RESTORED: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "masses": RandomMass,
    "array that grows": ResizesAnArray,
    "torch's generator": DrawsFromTorch,
    "NumPy's generator": DrawsFromNumpy,
    "closure that is registered": RegisteredClosure,
    "gravity": DrawsItsGravity,
}


@pytest.mark.parametrize("name", RESTORED)
def test_unusual_state_is_restored(name: str) -> None:
    runs = []
    for excursions in (False, True):
        th.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        env = DummyVecEnv([RESTORED[name]])
        env.seed(3)
        simulator = Simulator(env)
        env.reset()
        steps: list[np.ndarray] = []
        for step in range(40):
            if excursions and step % 7 == 0:
                snapshot = simulator.save()
                with simulator.excursion() as branch:
                    first = steps_of(branch)
                    simulator.restore(snapshot)
                    np.testing.assert_array_equal(steps_of(branch), first)
            steps.append(one_step(env, 0.0))
        runs.append(np.concatenate(steps))
    np.testing.assert_array_equal(runs[0], runs[1])


def one_step(env: VecEnv, action: float) -> np.ndarray:
    """Take a step and join the observation and the reward of one environment."""
    actions = np.full((1, *(env.action_space.shape or ())), action, dtype=env.action_space.dtype)
    observations: Any
    observations, rewards, *_ = env.step(actions)
    return np.append(observations[0], rewards)


def steps_of(env: VecEnv) -> np.ndarray:
    """Take some steps, with a reset among them."""
    steps = [one_step(env, 1.0) for _ in range(5)]
    env.reset()
    return np.array([*steps, *(one_step(env, 1.0) for _ in range(20))])


def test_masses_are_those_of_the_trunk_after_an_excursion() -> None:
    env = DummyVecEnv([RandomMass])
    model = VineTRPO("MlpPolicy", env, **SMALL)
    robot = env.envs[0].unwrapped.model  # type: ignore[attr-defined]
    env.reset()
    before = robot.body_mass.copy(), robot.opt.gravity.copy(), robot.opt.timestep
    with model._simulator.excursion() as branch:
        branch.reset()
        assert robot.body_mass[1] != before[0][1]
        assert robot.opt.timestep != before[2]
    np.testing.assert_array_equal(robot.body_mass, before[0])
    np.testing.assert_array_equal(robot.opt.gravity, before[1])
    assert robot.opt.timestep == before[2]


@pytest.mark.parametrize(("make", "name"), [(IntWithAttributes, r"`k` \(GymBag\)"), (HasAModule, r"`model` \(Linear\)")])
def test_attributes_that_are_not_plain_data_are_refused_by_name(make: Callable[[], gym.Env[Any, Any]], name: str) -> None:
    with pytest.raises(ValueError, match=f"{make.__name__} cannot be saved and restored: its attribute {name}"):
        VineTRPO("MlpPolicy", DummyVecEnv([make]), **SMALL)


class NeedsAReset(gym.Env[np.ndarray, Any]):
    """Has no state before the first reset."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,))
    action_space = spaces.Discrete(2)
    place: float

    def get_state(self) -> float:
        return self.place

    def set_state(self, state: float) -> None:
        self.place = state

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal()
        return np.array([self.place], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += self.np_random.normal()
        return np.array([self.place], dtype=np.float32), 1.0, self.place > 3.0, False, {}


ENVS: dict[str, Callable[[], VecEnv]] = {
    "classic control": lambda: make_vec_env("CartPole-v1", 2),
    "robot": lambda: VecNormalize(make_vec_env("Hopper-v5", 2)),
    "custom": lambda: DummyVecEnv([NeedsAReset]),
}


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize("reset", [False, True])
def test_the_check_leaves_no_trace(name: str, reset: bool) -> None:
    runs = []
    for checked in (False, True):
        env = ENVS[name]()
        env.seed(5)
        if reset:
            env.reset()
        before = generator_states()
        if checked:
            simulator = Simulator(env)
            action = np.zeros((env.num_envs, *(env.action_space.shape or ())), dtype=env.action_space.dtype)
            check_replay(simulator, lambda _: action)  # noqa: B023
            assert not simulator.draws_globally
            assert generator_states() == before
            if not reset:
                assert all(generator is None for generator in env.get_attr("_np_random"))
        if not reset:
            env.reset()
        action = np.zeros((env.num_envs, *(env.action_space.shape or ())), dtype=env.action_space.dtype)
        runs.append([env.step(action)[:3] for _ in range(40)])
    for first, second in zip(*runs, strict=True):
        for part, part2 in zip(first, second, strict=True):
            np.testing.assert_array_equal(part, part2)


def test_global_generators_are_saved_where_environments_draw_from_them() -> None:
    assert VineTRPO("MlpPolicy", DummyVecEnv([DrawsFromTorch]), **SMALL)._simulator.draws_globally
    assert VineTRPO("MlpPolicy", DummyVecEnv([DrawsFromNumpy]), **SMALL)._simulator.draws_globally
    simulator = VineTRPO("MlpPolicy", "CartPole-v1", **SMALL)._simulator
    assert not simulator.draws_globally
    assert simulator.save().generators is None
    with simulator.excursion():  # later, something does draw from them
        np.random.normal()  # noqa: NPY002
    assert simulator.save().generators is not None
