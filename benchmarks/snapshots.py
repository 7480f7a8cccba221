"""
Time saving, restoring and stepping one environment of a VineTRPO; print medians. ::

    OMP_NUM_THREADS=1 python -m benchmarks.snapshots
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from sb3_trpo import VineTRPO

ENVS = ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "InvertedPendulum-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5"]
GAME = "BreakoutNoFrameskip-v4"


def typical(call: Callable[[], Any], rounds: int) -> float:
    """
    Time a call.

    :param call: what to time
    :param rounds: how often
    :return: the median time, microseconds
    """
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


def typical_step(env: VecEnv, rounds: int) -> float:
    """
    Time the steps of random actions, none of which ends an episode.

    :param env: one environment
    :param rounds: how many steps
    :return: the median time, microseconds
    """
    times = []
    for _ in range(rounds):
        action = np.array([env.action_space.sample()])
        start = time.perf_counter()
        dones = env.step(action)[2]
        if not dones[0]:
            times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    rounds = parser.parse_args().rounds
    gym.register_envs(ale_py)
    print("| env | step, µs | save, µs | restore, µs |\n|---|---|---|---|")
    for name in [*ENVS, GAME]:
        env = VecFrameStack(make_atari_env(GAME, seed=0), 4) if name == GAME else name
        model = VineTRPO("CnnPolicy" if name == GAME else "MlpPolicy", env, n_steps=64, seed=0, device="cpu")
        simulator = model._simulator
        assert model.env is not None
        model.env.reset()
        step = typical_step(model.env, rounds)
        snapshot = simulator.save()
        times = typical(simulator.save, rounds), typical(lambda: simulator.restore(snapshot), rounds)  # noqa: B023
        print(f"| {name} | {step:.0f} | {times[0]:.0f} | {times[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
