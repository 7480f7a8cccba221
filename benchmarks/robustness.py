"""
Measure how sb3-trpo and sb3-contrib's TRPO behave where a trust-region method can go wrong.

The script prints a Markdown table with both side by side::

    python -m benchmarks.robustness
"""

import argparse
import sys
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, TypeAlias

import numpy as np
import torch as th
from gymnasium.wrappers import TransformReward
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.common.arms import ALGORITHMS, OURS, PEER
from benchmarks.common.tables import print_head, print_row
from tests.toy_envs import ConstantEnv

MeanStd: TypeAlias = tuple[th.Tensor, th.Tensor]
SEEDS = (0, 1, 2)
TARGET_KL = 0.01
SIDES = [ALGORITHMS[PEER], ALGORITHMS[OURS]]


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
    Average KL(old‖new) over the states, summed over the action dimensions.

    :param old: mean and std before the update, each of shape (B, d)
    :param new: after it
    :return: the mean, nats
    """
    p, q = th.distributions.Normal(*old), th.distributions.Normal(*new)
    return th.distributions.kl_divergence(p, q).sum(dim=1).mean().item()


def largest_kl(cls: type[OnPolicyAlgorithm], env: str, **kwargs: Any) -> str:
    """
    Find the largest step.

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
    Find how far a step goes with the default settings.

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
    Train where there is nothing to learn.

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
    Train with one NaN among the rewards.

    :param cls: the algorithm
    :return: the error, and the state of the weights afterwards
    """
    rewards = chain(repeat(1.0, 99), [float("nan")], repeat(1.0))
    env = TransformReward(ConstantEnv(), lambda _: next(rewards))
    model = cls("MlpPolicy", env, n_steps=64, batch_size=64, seed=0, device="cpu")  # type: ignore[call-arg]
    try:
        model.learn(64 * 4)
        error = "no error"
    except ValueError as raised:
        error = f"ValueError: “{str(raised).splitlines()[0][:60]}…”"
    finite = all(bool(th.isfinite(parameter).all()) for parameter in model.policy.parameters())
    return f"{error}; weights {'finite' if finite else 'NaN'}"


def main(arguments: list[str]) -> None:
    """Measure and print."""
    description = "Where a trust-region method can go wrong: sb3-trpo and sb3-contrib's TRPO."
    argparse.ArgumentParser(description=description).parse_args(arguments)
    th.set_num_threads(1)
    rows: dict[str, Callable[[type[OnPolicyAlgorithm]], str]] = {
        "largest KL of an update / `target_kl`, Hopper-v5": lambda cls: largest_kl(cls, "Hopper-v5"),
        "the same with `sub_sampling_factor=8`": lambda cls: largest_kl(cls, "Hopper-v5", sub_sampling_factor=8),
        "the same, HalfCheetah-v5": lambda cls: largest_kl(cls, "HalfCheetah-v5"),
        "median KL of an update / `target_kl`, HalfCheetah-v5, default settings": realised_kl,
        "updates that move the policy when all rewards are equal": steps_on_no_signal,
        "one NaN reward": nan_reward,
    }
    print_head("", *(side.package for side in SIDES))
    for label, measure in rows.items():
        print_row(label, *(measure(side.cls) for side in SIDES))


if __name__ == "__main__":
    main(sys.argv[1:])
