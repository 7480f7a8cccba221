"""
How sb3-trpo and sb3-contrib's TRPO behave where a trust-region method can go wrong, measured with both side by side.

Prints a Markdown table::

    python -m benchmarks.robustness
"""

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import sb3_contrib
import torch as th
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_trpo import TRPO

MeanStd: TypeAlias = tuple[th.Tensor, th.Tensor]
SEEDS = (0, 1, 2)
TARGET_KL = 0.01
ALGORITHMS: dict[str, type[OnPolicyAlgorithm]] = {"sb3-contrib": sb3_contrib.TRPO, "sb3-trpo": TRPO}


class ConstantEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    One-step episodes with one observation and one reward: there is nothing to learn.

    :param poisoned: the step, counted from the creation, whose reward is NaN
    """

    observation_space = spaces.Box(-1.0, 1.0, (3,), dtype=np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), dtype=np.float32)

    def __init__(self, poisoned: int = -1) -> None:
        self.poisoned = poisoned
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.full(3, 0.3, dtype=np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = float("nan") if self.steps == self.poisoned else 1.0
        return np.full(3, 0.3, dtype=np.float32), reward, True, False, {}


def after_each_update(model: OnPolicyAlgorithm, n_updates: int, measure: Callable[[MeanStd, MeanStd], float]) -> list[float]:
    """
    Train and measure every update.

    :param model: a model with a Box action space
    :param n_updates: updates to make
    :param measure: old and new (mean, std) over the states of the rollout -> the figure of interest
    :return: one figure an update
    """
    figures: list[float] = []
    train = model.train

    def gaussian(obs: th.Tensor) -> MeanStd:
        model.policy.set_training_mode(False)
        with th.no_grad():
            normal: Any = model.policy.get_distribution(obs).distribution
            return normal.mean.double(), normal.stddev.double()

    def measured() -> None:
        obs = th.as_tensor(model.rollout_buffer.observations.reshape(-1, *model.observation_space.shape or ()))
        old = gaussian(obs)
        train()
        figures.append(measure(old, gaussian(obs)))

    model.train = measured  # type: ignore[method-assign]
    model.learn(n_updates * model.n_steps)
    return figures


def true_kl(old: MeanStd, new: MeanStd) -> float:
    """
    :param old: mean and std before the update, each of shape (B, d)
    :param new: after it
    :return: mean KL(old‖new) over the states, summed over the action dimensions, nats
    """
    p, q = th.distributions.Normal(*old), th.distributions.Normal(*new)
    return th.distributions.kl_divergence(p, q).sum(dim=1).mean().item()


def largest_kl(cls: type[OnPolicyAlgorithm], env: str, **kwargs: Any) -> str:
    """
    :param cls: the algorithm
    :param env: environment id
    :param kwargs: further hyperparameters
    :return: largest true KL of an update, in units of ``target_kl``, and the share of updates beyond it
    """
    kls: list[float] = []
    for seed in SEEDS:
        model = cls("MlpPolicy", env, n_steps=512, target_kl=TARGET_KL, seed=seed, device="cpu", **kwargs)  # type: ignore[call-arg]
        kls += after_each_update(model, 20, true_kl)
    ratios = np.array(kls) / TARGET_KL
    return f"{ratios.max():.2f}; beyond it in {np.sum(ratios > 1.001)} of {len(ratios)}"


def realised_kl(cls: type[OnPolicyAlgorithm]) -> str:
    """
    :param cls: the algorithm
    :return: median true KL of an update in units of ``target_kl``, and the share of updates that moved the policy
    """
    kls: list[float] = []
    for seed in SEEDS:
        kls += after_each_update(cls("MlpPolicy", "HalfCheetah-v5", seed=seed, device="cpu"), 50, true_kl)  # type: ignore[call-arg]
    target_kl: Any = cls("MlpPolicy", "HalfCheetah-v5", device="cpu").target_kl  # type: ignore[call-arg,attr-defined]
    return f"{np.median(kls) / target_kl:.2f}; moved in {np.sum(np.array(kls) > 0.0)} of {len(kls)}"


def steps_on_no_signal(cls: type[OnPolicyAlgorithm]) -> str:
    """
    :param cls: the algorithm
    :return: updates that moved the policy although every reward and observation was the same
    """
    moved: list[float] = []
    for seed in SEEDS:
        model = cls("MlpPolicy", ConstantEnv(), n_steps=64, batch_size=64, seed=seed, device="cpu")  # type: ignore[call-arg]
        moved += after_each_update(model, 12, true_kl)
    return f"{np.sum(np.array(moved) > 1e-6)} of {len(moved)}"


def nan_reward(cls: type[OnPolicyAlgorithm]) -> str:
    """
    :param cls: the algorithm
    :return: what one NaN reward leads to
    """
    model = cls("MlpPolicy", ConstantEnv(poisoned=100), n_steps=64, batch_size=64, seed=0, device="cpu")  # type: ignore[call-arg]
    try:
        model.learn(64 * 4)
        error = "no error"
    except ValueError as raised:
        error = f"ValueError: “{str(raised).splitlines()[0][:60]}…”"
    finite = all(bool(th.isfinite(parameter).all()) for parameter in model.policy.parameters())
    return f"{error}; weights {'finite' if finite else 'NaN'}"


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(
        description="Where a trust-region method can go wrong: sb3-trpo and sb3-contrib's TRPO."
    ).parse_args()
    th.set_num_threads(1)
    rows: dict[str, Callable[[type[OnPolicyAlgorithm]], str]] = {
        "largest KL of an update / `target_kl`, Hopper-v5": lambda cls: largest_kl(cls, "Hopper-v5"),
        "the same with `sub_sampling_factor=8`": lambda cls: largest_kl(cls, "Hopper-v5", sub_sampling_factor=8),
        "the same, HalfCheetah-v5": lambda cls: largest_kl(cls, "HalfCheetah-v5"),
        "median KL of an update / `target_kl`, HalfCheetah-v5, default settings": realised_kl,
        "updates that move the policy when all rewards are equal": steps_on_no_signal,
        "one NaN reward": nan_reward,
    }
    print(f"| | {' | '.join(ALGORITHMS)} |\n|---|{'---|' * len(ALGORITHMS)}")
    for label, measure in rows.items():
        print(f"| {label} | {' | '.join(measure(cls) for cls in ALGORITHMS.values())} |", flush=True)


if __name__ == "__main__":
    main()
