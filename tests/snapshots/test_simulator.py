"""Restored environments repeat the same observations, rewards and ends, and excursions leave no trace."""

import importlib
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_trpo import deepcopy_state, register_simulator
from sb3_trpo.envs.lean_vec_env import wrap_bare_env
from sb3_trpo.snapshots.known_layers import known_layers
from sb3_trpo.snapshots.simulator import Simulator
from tests.toy_envs import RandomEnv

gym.register_envs(ale_py)

CLASSIC = ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
MUJOCO = [
    *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5", "InvertedPendulum-v5"),
    *("InvertedDoublePendulum-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5", "Ant-v4"),
]


def wrapped_classic() -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = gym.make("Pendulum-v1", max_episode_steps=23)
    return wrappers.FrameStackObservation(wrappers.TimeAwareObservation(wrappers.ClipAction(env)), 3)


ENVS: dict[str, Callable[[], VecEnv]] = {
    **{name: partial(make_vec_env, name, 2, seed=0) for name in [*CLASSIC, *MUJOCO]},
    "normalised": lambda: VecNormalize(make_vec_env("Hopper-v5", 2, seed=0)),
    "without deep copies": lambda: wrap_bare_env(gym.make("Walker2d-v5"), 0, True),
    "wrapped": lambda: DummyVecEnv([lambda: Monitor(wrapped_classic())]),
    "robot in many wrappers": lambda: DummyVecEnv([wrapped_robot] * 2),
    "game in gymnasium's wrappers": lambda: DummyVecEnv([wrapped_game]),
    "Dict space": lambda: VecFrameStack(DummyVecEnv([DictEnv] * 2), 3),
    "normalised Dict space": lambda: VecNormalize(DummyVecEnv([DictEnv] * 2), norm_obs_keys=["vector"]),
    "one part of a Dict space": lambda: VecExtractDictObs(DummyVecEnv([DictEnv]), "vector"),
    "checked": lambda: VecCheckNan(make_vec_env("CartPole-v1", 2, seed=0)),
    "monitored outside": lambda: VecNormalize(VecMonitor(DummyVecEnv([lambda: gym.make("CartPole-v1")] * 3))),
    "game": lambda: VecTransposeImage(VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", 2, seed=0), 4)),
    "game without lives": lambda: VecFrameStack(make_atari_env("FreewayNoFrameskip-v4", 1, seed=0), 2),
    "game of version 5": lambda: make_vec_env(
        "ALE/Pong-v5", 1, seed=0, wrapper_class=AtariWrapper, env_kwargs={"repeat_action_probability": 0.0}
    ),
}


def wrapped_robot() -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = wrappers.TransformReward(gym.make("Walker2d-v5"), lambda reward: 2.0 * float(reward))
    env = wrappers.StickyAction(wrappers.NormalizeReward(wrappers.NormalizeObservation(env)), 0.5)
    env = wrappers.DelayObservation(
        wrappers.ClipReward(wrappers.RescaleAction(env, np.float32(-0.5), np.float32(0.5)), -1.0, 1.0), 2
    )
    return wrappers.TransformObservation(env, lambda obs: -obs, env.observation_space)


def wrapped_game() -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = gym.make("BreakoutNoFrameskip-v4")
    env = wrappers.ResizeObservation(wrappers.GrayscaleObservation(env), (84, 84))
    return wrappers.MaxAndSkipObservation(wrappers.FrameStackObservation(env, 4), 2)


class DictEnv(RandomEnv):
    """Draws its observations from a Dict space."""

    def __init__(self) -> None:
        space = spaces.Dict({"vector": spaces.Box(-1.0, 1.0, (3,)), "place": spaces.Box(0, 255, (8, 8, 1), np.uint8)})
        super().__init__(space, spaces.Discrete(3))

    def get_state(self) -> int:
        return self.steps

    def set_state(self, state: int) -> None:
        self.steps = state


def run(env: VecEnv, actions: list[Any]) -> list[Any]:
    """Step with given actions and return copies of all results."""
    steps = []
    for action in actions:
        observations, rewards, dones, infos = env.step(np.array(action))
        ends = [(info["TimeLimit.truncated"], info.get("terminal_observation")) for info in infos]
        parts: list[Any] = list(observations.values()) if isinstance(observations, dict) else [observations]
        steps.append(([part.copy() for part in parts], rewards.copy(), dones.copy(), ends))
    return steps


def assert_equal(first: list[Any], second: list[Any]) -> None:
    for (obs, rewards, dones, ends), (obs2, rewards2, dones2, ends2) in zip(first, second, strict=True):
        for part, part2 in zip(obs, obs2, strict=True):
            np.testing.assert_array_equal(part, part2)
        np.testing.assert_array_equal(rewards, rewards2)
        np.testing.assert_array_equal(dones, dones2)
        for (limit, last), (limit2, last2) in zip(ends, ends2, strict=True):
            assert limit == limit2
            np.testing.assert_equal(last, last2)


def sample(env: VecEnv, n_steps: int) -> list[Any]:
    return [[env.action_space.sample() for _ in range(env.num_envs)] for _ in range(n_steps)]


@pytest.mark.filterwarnings("ignore:.*deprecated")  # the old versions of the tasks
@pytest.mark.filterwarnings("ignore:.*out of date")
@pytest.mark.parametrize("name", ENVS)
def test_a_restored_state_repeats_the_run(name: str) -> None:
    env = ENVS[name]()
    env.action_space.seed(0)
    simulator = Simulator(env)
    env.reset()
    run(env, sample(env, 17))
    with simulator.excursion():
        snapshot = simulator.save()
        actions = sample(env, 120)  # past ends, limits and resets
        first = run(env, actions)
        for _ in range(2):  # a snapshot can be restored more than once
            simulator.restore(snapshot)
            assert_equal(run(env, actions), first)
    env.close()


@pytest.mark.parametrize("name", ["Hopper-v5", "normalised", "wrapped", "monitored outside", "game"])
def test_an_excursion_leaves_no_trace(name: str, tmp_path: Path) -> None:
    runs = []
    for excursions in (False, True):
        env = ENVS[name]()
        env.action_space.seed(1)
        simulator = Simulator(env)
        env.seed(0)
        observations = [np.array(env.reset())]
        infos: list[Any] = []
        for step in range(60):
            if excursions and step % 7 == 0:
                snapshot = simulator.save()
                with simulator.excursion() as branch:
                    simulator.restore(snapshot)
                    run(branch, [np.zeros_like(action) for action in sample_without_a_trace(env, 40)])
            obs, _, _, info = env.step(np.array(sample(env, 1)[0]))
            observations.append(np.array(obs))
            infos += [{key: i["episode"][key] for key in "rl"} for i in info if "episode" in i]
        statistics = np.array(env.normalize_obs(observations[-1])) if isinstance(env, VecNormalize) else None
        runs.append((observations, infos, statistics))
        env.close()
    np.testing.assert_array_equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    np.testing.assert_array_equal(runs[0][2], runs[1][2])


def sample_without_a_trace(env: VecEnv, n_steps: int) -> list[Any]:
    space = env.action_space
    shape = space.shape if isinstance(space, spaces.Box) else ()
    return [np.zeros((env.num_envs, *shape), dtype=space.dtype) for _ in range(n_steps)]


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Hopper-v5", "Ant-v5", "game", "Dict space"])
def test_a_snapshot_is_restored_in_another_process(name: str, tmp_path: Path) -> None:
    env = ENVS[name]()
    env.action_space.seed(0)
    simulator = Simulator(env)
    env.reset()
    run(env, sample(env, 20))
    actions = sample(env, 60)
    (tmp_path / "in.pickle").write_bytes(pickle.dumps((name, simulator.save(), actions)))
    with simulator.excursion():
        first = run(env, actions)
    code = f"from tests.snapshots.test_simulator import continue_run; continue_run({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert_equal(pickle.loads((tmp_path / "out.pickle").read_bytes()), first)


def continue_run(folder: str) -> None:
    """Continue from a snapshot in new environments."""
    name, snapshot, actions = pickle.loads((Path(folder) / "in.pickle").read_bytes())
    env = ENVS[name]()
    simulator = Simulator(env)
    with simulator.excursion():
        simulator.restore(snapshot)
        (Path(folder) / "out.pickle").write_bytes(pickle.dumps(run(env, actions)))


def test_a_snapshot_of_other_environments_is_refused() -> None:
    snapshot = Simulator(make_vec_env("CartPole-v1", 2)).save()
    with pytest.raises(ValueError, match="`snapshot` must have the layers of these environments"):
        Simulator(make_vec_env("CartPole-v1", 1)).restore(snapshot)


@pytest.mark.parametrize("known_before", [False, True])
def test_rl_zoos_time_limit_counts_as_gymnasiums(known_before: bool) -> None:
    code = (
        "import gymnasium as gym; from stable_baselines3.common.vec_env import DummyVecEnv as V; "
        "from sb3_trpo.snapshots.simulator import Simulator; make = lambda: gym.make('CartPole-v1'); "
        f"{'Simulator(V([make]))' if known_before else 'pass'}; import rl_zoo3.gym_patches; "
        "print(Simulator(V([make])).save().layers)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    assert str(Simulator(DummyVecEnv([lambda: gym.make("CartPole-v1")])).save().layers) in done.stdout


def test_an_excursion_puts_back_two_nested_monitors() -> None:
    inner = VecMonitor(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    outer = VecMonitor(inner)
    env = VecNormalize(outer)
    env.reset()
    with Simulator(env).excursion():
        assert env.venv is inner.venv
    assert (env.venv, outer.venv) == (outer, inner)


def test_an_excursion_puts_back_monitors_after_an_error() -> None:
    env = ENVS["game"]()
    env.reset()
    chain = [type(layer).__name__ for layer in chain_of(env)]
    assert "Monitor" in chain

    def interrupted() -> None:
        with Simulator(env).excursion():
            assert "Monitor" not in [type(layer).__name__ for layer in chain_of(env)]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [type(layer).__name__ for layer in chain_of(env)] == chain


def chain_of(env: VecEnv) -> list[Any]:
    layer: Any = env.unwrapped.envs[0]  # type: ignore[attr-defined]
    chain = [layer]
    while isinstance(layer, gym.Wrapper):
        layer = layer.env
        chain.append(layer)
    return chain


class Counter(RandomEnv):
    """Rewards the number of the step, which it stores beside an object that is not plain data."""

    def __init__(self) -> None:
        super().__init__(length=1000)
        self.box = [0, object()]

    def step(self, action: Any) -> Any:
        self.box[0] += 1  # type: ignore[operator]
        return np.zeros(3, dtype=np.float32), float(self.box[0]), False, False, {}  # type: ignore[arg-type]


class CounterWithMethods(Counter):
    """A custom environment with the two methods."""

    def get_state(self) -> Any:
        return self.box[0]

    def set_state(self, state: Any) -> None:
        self.box[0] = state


class RegisteredCounter(Counter):
    """A custom environment that is registered."""


register_simulator(RegisteredCounter, lambda env: env.box[0], lambda env, state: env.box.__setitem__(0, state))


@pytest.mark.parametrize("env_class", [CounterWithMethods, RegisteredCounter])
def test_a_custom_environment_is_restored(env_class: type[Counter]) -> None:
    env = DummyVecEnv([env_class])
    env.reset()
    simulator = Simulator(env)
    run(env, sample(env, 3))
    snapshot = simulator.save()
    assert [step[1][0] for step in run(env, sample(env, 2))] == [4.0, 5.0]
    simulator.restore(snapshot)
    assert [step[1][0] for step in run(env, sample(env, 2))] == [4.0, 5.0]


class Wind:
    def __init__(self, cart: Any) -> None:
        self.cart, self.calls, self.generator = cart, 0, cart.np_random

    def blow(self) -> float:
        self.calls += 1
        return self.calls + float(self.generator.random())


class WindyCartPole(CartPoleEnv):
    """A custom subclass of a known environment, with two references to one object."""

    def __init__(self) -> None:
        super().__init__()
        self.wind = Wind(self)
        self.winds = [self.wind]

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)  # type: ignore[no-untyped-call]
        self.winds[0].calls += 1
        return np.append(observation[:3], np.float32(self.wind.blow())), *rest


register_simulator(WindyCartPole, *deepcopy_state)


class Weather:
    __slots__ = ("calls",)


class CartPoleInTheWeather(CartPoleEnv):
    """Has an attribute that cannot be saved."""

    def __init__(self) -> None:
        super().__init__()
        self.weather = Weather()


class HopperWithWaves(HopperEnv):
    def __init__(self, waves: Any) -> None:
        super().__init__()
        self.waves = waves


class KnowsItsBase(wrappers.TimeLimit):
    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env, 100)
        self.base = env.unwrapped


class CartPoleThatIsRegistered(CartPoleInTheWeather):
    """Is registered, so its weather is not refused."""


register_simulator(CartPoleThatIsRegistered, *deepcopy_state)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HopperWithWaves([np.zeros(3)]),
        lambda: KnowsItsBase(gym.make("CartPole-v1").unwrapped),
        CartPoleThatIsRegistered,
    ],
)
def test_a_subclass_of_a_known_class_is_restored(make: Callable[[], gym.Env[Any, Any]]) -> None:
    env = DummyVecEnv([make])
    simulator = Simulator(env)
    env.reset()
    snapshot = simulator.save()
    action = np.zeros((1, *(env.action_space.shape or ())), dtype=env.action_space.dtype)
    after: list[Any] = []
    for _ in range(2):
        simulator.restore(snapshot)
        after.append(env.step(action)[0])
    np.testing.assert_array_equal(after[0], after[1])


class WithAnotherGetState(CartPoleEnv):
    """Has a ``get_state``, but no ``set_state``."""

    def get_state(self) -> Any:
        return self.state


def test_a_get_state_without_a_set_state_is_ignored() -> None:
    env = DummyVecEnv([WithAnotherGetState])
    simulator_of = Simulator(env)
    env.reset()
    snapshot = simulator_of.save()
    first = [env.step(np.array([1]))[0] for _ in range(3)]
    simulator_of.restore(snapshot)
    np.testing.assert_array_equal([env.step(np.array([1]))[0] for _ in range(3)], first)


class Gusts(CartPoleEnv):
    """Replaces the last observation by a random wind."""

    def __init__(self, wind: Callable[[float, float], float]) -> None:
        super().__init__()
        self.wind = wind

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)  # type: ignore[no-untyped-call]
        return np.append(observation[:3], np.float32(self.wind(-1.0, 1.0))), *rest


class OldGusts(Gusts):
    def __init__(self) -> None:
        self.random = np.random.RandomState(0)
        super().__init__(self.random.uniform)


class PythonsGusts(Gusts):
    def __init__(self) -> None:
        self.random = random.Random(0)
        super().__init__(self.random.uniform)


GUSTS: dict[str, Callable[[], CartPoleEnv]] = {
    "an object": WindyCartPole,
    "RandomState": OldGusts,
    "random.Random": PythonsGusts,
    "numpy.random": lambda: Gusts(np.random.uniform),
    "random": lambda: Gusts(random.uniform),
}


@pytest.mark.parametrize("name", GUSTS)
def test_random_generators_of_every_kind_are_restored(name: str) -> None:
    env = DummyVecEnv([GUSTS[name]])
    simulator = Simulator(env)
    env.reset()
    with simulator.excursion():
        snapshot = simulator.save()
        actions = sample(env, 5)
        first = run(env, actions)
        simulator.restore(snapshot)
        assert_equal(run(env, actions), first)
    assert_equal(run(env, actions), first)  # as if nothing had happened
    winds = [step[0][0][0, 3] for step in first]
    assert len(set(winds)) == 5


def test_a_seed_gives_other_random_numbers_in_the_same_state() -> None:
    env = make_vec_env("Acrobot-v1", 2, seed=0, env_kwargs={"render_mode": None})
    for layer in env.envs:  # type: ignore[attr-defined]
        layer.unwrapped.torque_noise_max = 0.5
    simulator = Simulator(env)
    env.reset()
    snapshot = simulator.save()
    runs = []
    for seed in (None, 1, 2, 1):
        simulator.restore(snapshot, seed)
        runs.append(np.array([step[0][0] for step in run(env, [[1, 1]] * 5)]))
    np.testing.assert_array_equal(runs[1], runs[3])
    assert len({steps.tobytes() for steps in runs}) == 3
    assert not np.array_equal(runs[1][0, 0], runs[1][0, 1])  # each environment has different numbers


class CustomWrapper(gym.Wrapper[Any, Any, Any, Any]):
    pass


@pytest.mark.filterwarnings("ignore:builtin type")  # Box2D warns; the warning would be fatal as an error
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DummyVecEnv([Counter]), r"test_simulator.Counter cannot be saved.*get_state\(\).*register_simulator"),
        (lambda: DummyVecEnv([lambda: CustomWrapper(gym.make("CartPole-v1"))]), "simulator.CustomWrapper cannot be saved"),
        (
            lambda: DummyVecEnv([CartPoleInTheWeather]),
            r"its attribute `weather` \(Weather\) is not plain data: numbers.*; give it",
        ),
        (lambda: DummyVecEnv([lambda: HopperWithWaves(iter([1]))]), r"HopperWithWaves cannot.*`waves` \(list_iterator\)"),
        (lambda: make_vec_env("LunarLander-v3", 1), "lunar_lander.LunarLander cannot be saved"),
        (lambda: make_vec_env("ALE/Pong-v5", 1), "AtariEnv cannot.*sticky actions.*`repeat_action_probability=0`"),
        (lambda: SubprocVecEnv([lambda: gym.make("CartPole-v1")]), "must keep .* in a DummyVecEnv, not in a SubprocVecEnv"),
    ],
)
def test_other_environments_are_refused_by_name(make: Callable[[], VecEnv], message: str) -> None:
    env = make()
    try:
        with pytest.raises(ValueError, match=message):
            Simulator(env)
    finally:
        env.close()


def test_without_mujoco_the_other_simulators_are_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.mujoco")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(gym.error.DependencyNotInstalled):
        importlib.import_module("gymnasium.envs.mujoco")
    known = [layer.__name__ for layer in known_layers.__wrapped__()]
    assert "CartPoleEnv" in known
    assert "AtariEnv" in known
    assert "MujocoEnv" not in known


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CartPole-v1", vars, setattr), "`env_class` must be a class of environments or wrappers, not 'CartPole-v1'"),
        ((int, vars, setattr), "`env_class` must be a class of environments or wrappers"),
        ((CartPoleEnv, None, setattr), "`get_state` must be a function, not None"),
        ((CartPoleEnv, vars, 1), "`set_state` must be a function, not 1"),
    ],
)
def test_nonsense_is_not_registered(arguments: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        register_simulator(*arguments)
