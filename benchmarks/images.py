"""
Speed and memory on images: Atari games through SB3's ``AtariWrapper``, 8 environments, on one thread, with
NatureCNN unless another network is named.

Ours has the hyperparameters of the ``atari`` entry of ``zoo_hyperparams/trpo.yml``, PPO those of RL Zoo, and sb3-contrib's
TRPO its defaults, with ``n_steps=128``: an update is of 1,024 frames. The statistics of our images are fixed after
the first rollout, which is not timed (in training after 100,000 images of ten million). Both sides train in one process, in
turns; a figure is the median over the rounds of the ratio of a round. Every case has a process of its own. ::

    python -m benchmarks.images                 # 20 to 25 minutes
    python -m benchmarks.images --quick         # one round
    python -m benchmarks.images --device cuda   # both sides on the GPU
"""

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import sb3_contrib
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack

from benchmarks.experiment import hyperparameters, set_up
from benchmarks.speed import alone, memory, seconds, table_head, table_row, update_alone, whole_run
from sb3_trpo import TRPO
from sb3_trpo.arguments.hyperparameters import make_schedule
from sb3_trpo.envs.atari_envpool import AtariEnvPool
from sb3_trpo.envs.envpool import EnvPoolVecEnv
from sb3_trpo.policies.image_normalization import ImageNormalization

GAME = "PongNoFrameskip-v4"
SAME: dict[str, Any] = {"n_steps": 128, "seed": 0}


def shipped(algorithm: str, device: str, share: bool | None = None, policy: str = "CnnPolicy") -> OnPolicyAlgorithm:
    """
    :param algorithm: a name of :mod:`benchmarks.experiment`
    :param device: of the model
    :param share: whether actor and critic share the extractor; None: as the entry says
    :param policy: the policy
    :return: the model that RL Zoo makes from the ``atari`` entry; the KL bound stays where it begins, for so short a training
    """
    entry = hyperparameters(algorithm, GAME, [f"policy={policy}"])
    if share is not None:
        entry["policy_kwargs"] = f"dict(share_features_extractor={share})"
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):  # the Zoo prints what it has read
        model = set_up(algorithm, GAME, 0, Path(folder), entry, device)[1]
    for module in model.policy.modules():
        if isinstance(module, ImageNormalization):
            module.n_images = 1  # gathered in the first rollout, before anything is timed
    if isinstance(model, TRPO):
        model.target_kl = make_schedule("target_kl", model.target_kl)(1.0)
    return model


def contrib(device: str, share: bool) -> OnPolicyAlgorithm:
    """
    :param device: of the model
    :param share: whether actor and critic share the extractor
    :return: sb3-contrib's TRPO with its defaults
    """
    return sb3_contrib.TRPO("CnnPolicy", games(), policy_kwargs={"share_features_extractor": share}, device=device, **SAME)


def identical(device: str, share: bool) -> OnPolicyAlgorithm:
    """
    :param device: of the model
    :param share: whether actor and critic share the extractor
    :return: ours with the settings and the network of :func:`contrib`; its solver takes all of its steps
    """
    kwargs = {"share_features_extractor": share, "features_extractor_class": NatureCNN}
    return TRPO("CnnPolicy", games(), policy_kwargs=kwargs, target_kl=0.01, cg_tol=0.0, device=device, **SAME)


def games() -> VecEnv:
    """
    :return: 8 environments
    """
    return VecFrameStack(make_atari_env(GAME, 8, seed=0), 4)


def update_shipped(device: str, share: bool, rounds: int) -> tuple[float, float, float]:
    """
    :param device: of both models
    :param share: whether actor and critic share the extractor
    :param rounds: turns of both sides
    :return: median ratio; our and sb3-contrib's updates per second
    """
    models = shipped("sb3_trpo", device, share), contrib(device, share)
    measured = update_alone(models, rounds)
    _check_step(models[0])
    return measured


def update_identical(device: str, share: bool, rounds: int) -> tuple[float, float, float]:
    """
    :param device: of both models
    :param share: whether actor and critic share the extractor
    :param rounds: turns of both sides
    :return: median ratio; our and sb3-contrib's updates per second
    """
    return update_alone((identical(device, share), contrib(device, share)), rounds)


def against_ppo(device: str, policy: str, rounds: int) -> tuple[float, float, float]:
    """
    :param device: of both models
    :param policy: ours; PPO has NatureCNN
    :param rounds: turns of both sides
    :return: median ratio; our and PPO's env steps per second
    """
    models = shipped("sb3_trpo", device, policy=policy), shipped("sb3_ppo", device)
    measured = whole_run(models, rounds)
    _check_step(models[0])
    return measured


def _check_step(model: OnPolicyAlgorithm) -> None:
    """Fail where an update had no policy step, so that none was measured."""
    assert isinstance(model, TRPO)
    assert model.last_step is not None
    assert model.last_step.cg_iterations > 0


def peak_memory(n_steps: int, share: bool) -> float:
    """
    Peak memory of this process in one update of the shipped settings, beyond the rollout buffer.

    :param n_steps: steps of the 8 environments
    :param share: whether actor and critic share the extractor
    :return: MB
    """
    model = shipped("sb3_trpo", "cpu", share)
    assert isinstance(model, TRPO)
    model.learn(model.n_steps * model.n_envs)  # whatever is allocated once
    space, actions = model.observation_space, model.action_space
    buffer = model.rollout_buffer = type(model.rollout_buffer)(n_steps, space, actions, "cpu", n_envs=8)
    rng = np.random.default_rng(0)
    buffer.observations[:] = rng.integers(0, 256, (n_steps, 8, 1, 1, 1), dtype=np.uint8)
    buffer.advantages[:] = rng.standard_normal(buffer.advantages.shape)
    buffer.returns[:] = rng.standard_normal(buffer.returns.shape)
    buffer.log_probs[:] = -np.log(6.0)
    buffer.full = True
    before = memory("VmRSS")
    model.train()
    _check_step(model)
    return (memory("VmHWM") - before) / 1e6


def envpool_games(num_threads: int, rounds: int) -> tuple[float, float, float]:
    """
    :param num_threads: threads of EnvPool
    :param rounds: turns of both sides
    :return: median ratio; env steps per second of ``AtariEnvPool`` and of ``make_atari_env``, random actions
    """
    return _stepping(AtariEnvPool(GAME, 8, 0, num_threads), make_atari_env(GAME, 8, seed=0), 250, rounds)


def envpool_mujoco(num_threads: int, rounds: int) -> tuple[float, float, float]:
    """
    :param num_threads: threads of EnvPool
    :param rounds: turns of both sides
    :return: median ratio; env steps per second of ``EnvPoolVecEnv`` and of ``make_vec_env``, random actions
    """
    env_id = "HalfCheetah-v5"
    return _stepping(EnvPoolVecEnv(env_id, 8, 0, num_threads), make_vec_env(env_id, 8, seed=0), 2_000, rounds)


def _stepping(ours: VecEnv, theirs: VecEnv, n_steps: int, rounds: int) -> tuple[float, float, float]:
    actions = np.array([[ours.action_space.sample() for _ in range(8)] for _ in range(n_steps)])

    def step(env: VecEnv) -> None:
        for action in actions:
            env.step(action)

    for env in (ours, theirs):
        env.reset()
    pairs = [(seconds(lambda: step(ours)), seconds(lambda: step(theirs))) for _ in range(rounds)]
    ratio = statistics.median(b / a for a, b in pairs)
    return ratio, *(8 * n_steps / statistics.median(side) for side in zip(*pairs, strict=True))


def main(arguments: list[str]) -> None:
    """
    Measure and print.

    :param arguments: the command line, without the program
    """
    parser = argparse.ArgumentParser(description="Speed and memory of sb3-trpo on images, against its peers.")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--device", default="cpu", help="as torch names it; where it is not the CPU, only speed")
    options = parser.parse_args(arguments)
    device, rounds = options.device, 1 if options.quick else 5
    packages = ["sb3-trpo", "stable-baselines3", "sb3-contrib", "torch", "gymnasium", "ale-py", "numpy"]
    packages += ["envpool"] if device == "cpu" else []
    table_head(packages, device, rounds)
    _print_updates(device, min(rounds, 3))
    label, small = "whole run, shipped settings, against SB3 PPO with RL Zoo's", "the same with `PaperCnnPolicy`, PPO as above"
    for policy, name, goals in (("CnnPolicy", label, ("0.6x", "1.2x")), ("PaperCnnPolicy", small, ("", ""))):
        ratio, mine, theirs = alone(against_ppo, device, policy, rounds)
        table_row(name, f"{ratio:.2f}x", f"{mine:.0f} steps/s", f"{theirs:.0f} steps/s", *goals)
    if device != "cpu":
        return
    for share, extractors in ((False, "separate extractors"), (True, "shared extractor")):
        for n_steps in (128, 2048):
            label = f"peak memory of an update beyond the buffer, {8 * n_steps:,} frames, {extractors}"
            table_row(label, f"{alone(peak_memory, n_steps, share):.0f} MB", "", "", "", "1,000 MB")
    for threads in (1, 2):
        _print_stepping(threads, rounds)


def _print_updates(device: str, rounds: int) -> None:
    label = "update on 1,024 frames, our shipped settings against sb3-contrib's defaults"
    for update, name, goals in (
        (update_shipped, label, {True: ("20x", "40x"), False: ("10x", "20x")}),
        (update_identical, "the same with identical settings", {True: ("2x", "3x"), False: ("2x", "3x")}),
    ):
        for share, extractors in ((True, "shared extractor"), (False, "separate extractors")):
            ratio, mine, theirs = alone(update, device, share, rounds)
            table_row(f"{name}, {extractors}", f"{ratio:.1f}x", f"{1 / mine:.2f} s", f"{1 / theirs:.1f} s", *goals[share])


def _print_stepping(threads: int, rounds: int) -> None:
    for stepping, name, peer in (
        (envpool_games, "`AtariEnvPool`", "`make_atari_env`"),
        (envpool_mujoco, "`EnvPoolVecEnv`, HalfCheetah-v5", "`make_vec_env`"),
    ):
        ratio, mine, theirs = alone(stepping, threads, rounds)
        label = f"8 environments alone, {name} on {threads} thread{'s' * (threads > 1)}, against {peer}"
        table_row(label, f"{ratio:.2f}x", f"{mine:,.0f} steps/s", f"{theirs:,.0f} steps/s", "", "")


if __name__ == "__main__":
    main(sys.argv[1:])
