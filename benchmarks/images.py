"""
Measure speed and memory on images: Atari games with SB3's ``AtariWrapper``, 8 environments and one thread.

The network is NatureCNN unless another one is named. sb3-trpo uses the hyperparameters of the ``atari`` entry of
``zoo_hyperparams/trpo.yml``, PPO those of RL Zoo, and sb3-contrib's TRPO its defaults, with ``n_steps=128``, so an update has
1,024 frames. The statistics of our images are fixed after the first rollout, which is not timed (in training, after 100,000
images of ten million). Both sides train in one process, in turns. A figure is the median over rounds of the ratio in a round.
Every case runs in a separate process. ::

    python -m benchmarks.images                 # 20 to 25 minutes
    python -m benchmarks.images --quick         # one round
    python -m benchmarks.images --device cuda   # both sides on the GPU
"""

import argparse
import os
import sys
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import sb3_contrib
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.common.environments import make_env
from benchmarks.common.processes import alone
from benchmarks.common.tables import print_row, print_speed_head
from benchmarks.common.timing import Comparison, in_turns, seconds
from benchmarks.common.training_speed import blank_rollout, update_alone, update_memory, whole_run
from benchmarks.common.zoo import zoo_model
from sb3_trpo import TRPO
from sb3_trpo.arguments.hyperparameters import make_schedule
from sb3_trpo.envs.atari_envpool import AtariEnvPool
from sb3_trpo.envs.envpool import EnvPoolVecEnv

GAME = "PongNoFrameskip-v4"
PACKAGES = ["sb3-trpo", "stable-baselines3", "sb3-contrib", "torch", "gymnasium", "ale-py", "numpy"]
SAME: dict[str, Any] = {"n_steps": 128, "seed": 0}


def shipped(device: str, share: bool = False, policy: str = "CnnPolicy") -> TRPO:
    """
    Make the model that RL Zoo makes from the ``atari`` entry; the KL bound stays where it begins, for so short a training.

    :param device: of the model
    :param share: whether actor and critic share the extractor
    :param policy: the policy
    :return: ours
    """
    # statistics of one image are complete after the first rollout, before anything is timed
    kwargs = f"dict(share_features_extractor={share}, features_extractor_kwargs=dict(n_images=1))"
    model = zoo_model("sb3_trpo", GAME, 0, [f"policy={policy}", f"policy_kwargs={kwargs}"], device)
    assert isinstance(model, TRPO)
    model.target_kl = make_schedule("target_kl", model.target_kl)(1.0)
    return model


def contrib(device: str, share: bool) -> OnPolicyAlgorithm:
    """
    Make sb3-contrib's TRPO with its defaults.

    :param device: of the model
    :param share: whether actor and critic share the extractor
    :return: the peer
    """
    kwargs = {"share_features_extractor": share}
    return sb3_contrib.TRPO("CnnPolicy", make_env(GAME, 8, 0), policy_kwargs=kwargs, device=device, **SAME)


def identical(device: str, share: bool) -> OnPolicyAlgorithm:
    """
    Make ours with the settings and the network of :func:`contrib`; its solver takes all of its steps.

    :param device: of the model
    :param share: whether actor and critic share the extractor
    :return: ours
    """
    kwargs = {"share_features_extractor": share, "features_extractor_class": NatureCNN}
    return TRPO("CnnPolicy", make_env(GAME, 8, 0), policy_kwargs=kwargs, target_kl=0.01, cg_tol=0.0, device=device, **SAME)


def update_shipped(device: str, share: bool, rounds: int) -> Comparison:
    """Compare updates of our shipped settings with sb3-contrib's, in seconds."""
    models = shipped(device, share), contrib(device, share)
    measured = update_alone(models, rounds)
    _check_step(models[0])
    return measured


def update_identical(device: str, share: bool, rounds: int) -> Comparison:
    """Compare updates with identical settings, in seconds."""
    return update_alone((identical(device, share), contrib(device, share)), rounds)


def against_ppo(device: str, policy: str, rounds: int) -> Comparison:
    """Compare whole runs with PPO, which has NatureCNN whatever our policy is, in env steps per second."""
    models = shipped(device, policy=policy), zoo_model("sb3_ppo", GAME, 0, [], device)
    measured = whole_run(models, rounds)
    _check_step(models[0])
    return measured


def _check_step(model: TRPO) -> None:
    """Fail where an update had no policy step, so that none was measured."""
    assert model.last_step is not None
    assert model.last_step.cg_iterations > 0


def peak_memory(n_steps: int, share: bool) -> float:
    """
    Measure the peak memory of this process in one update of the shipped settings, beyond the rollout buffer.

    :param n_steps: steps of the 8 environments
    :param share: whether actor and critic share the extractor
    :return: MB
    """
    model = shipped("cpu", share)
    model.learn(model.n_steps * model.n_envs)
    buffer = blank_rollout(model, n_steps)
    rng = np.random.default_rng(0)
    buffer.observations[:] = rng.integers(0, 256, (n_steps, 8, 1, 1, 1), dtype=np.uint8)
    buffer.advantages[:] = rng.standard_normal(buffer.advantages.shape)
    buffer.returns[:] = rng.standard_normal(buffer.returns.shape)
    buffer.log_probs[:] = -np.log(6.0)
    peak = update_memory(model)
    _check_step(model)
    return peak / 1e6


def envpool_games(num_threads: int, rounds: int) -> Comparison:
    """Compare ``AtariEnvPool`` with ``make_atari_env``, in env steps per second with random actions."""
    return _stepping(AtariEnvPool(GAME, 8, 0, num_threads), make_atari_env(GAME, 8, seed=0), 250, rounds)


def envpool_mujoco(num_threads: int, rounds: int) -> Comparison:
    """Compare ``EnvPoolVecEnv`` with ``make_vec_env``, in env steps per second with random actions."""
    env_id = "HalfCheetah-v5"
    return _stepping(EnvPoolVecEnv(env_id, 8, 0, num_threads), make_vec_env(env_id, 8, seed=0), 2_000, rounds)


def _stepping(ours: VecEnv, peer: VecEnv, n_steps: int, rounds: int) -> Comparison:
    actions = np.array([[ours.action_space.sample() for _ in range(8)] for _ in range(n_steps)])

    def step(env: VecEnv) -> None:
        for action in actions:
            env.step(action)

    for env in (ours, peer):
        env.reset()
    return in_turns(lambda: seconds(lambda: step(ours)), lambda: seconds(lambda: step(peer)), rounds).rates(8 * n_steps)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Speed and memory of sb3-trpo on images, against its peers.")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--device", default="cpu", help="as torch names it; where it is not the CPU, only speed")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    options = parse(arguments)
    device, rounds = options.device, 1 if options.quick else 5
    print_speed_head([*PACKAGES, "envpool"] if device == "cpu" else PACKAGES, device, rounds)
    _print_updates(device, min(rounds, 3))
    _print_whole_runs(device, rounds)
    if device == "cpu":
        _print_memory()
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
            print_row(f"{name}, {extractors}", f"{ratio:.1f}x", f"{mine:.2f} s", f"{theirs:.1f} s", *goals[share])


def _print_whole_runs(device: str, rounds: int) -> None:
    label, small = "whole run, shipped settings, against SB3 PPO with RL Zoo's", "the same with `PaperCnnPolicy`, PPO as above"
    for policy, name, goals in (("CnnPolicy", label, ("0.6x", "1.2x")), ("PaperCnnPolicy", small, ("", ""))):
        ratio, mine, theirs = alone(against_ppo, device, policy, rounds)
        print_row(name, f"{ratio:.2f}x", f"{mine:.0f} steps/s", f"{theirs:.0f} steps/s", *goals)


def _print_memory() -> None:
    for share, extractors in ((False, "separate extractors"), (True, "shared extractor")):
        for n_steps in (128, 2048):
            label = f"peak memory of an update beyond the buffer, {8 * n_steps:,} frames, {extractors}"
            print_row(label, f"{alone(peak_memory, n_steps, share):.0f} MB", "", "", "", "1,000 MB")


def _print_stepping(threads: int, rounds: int) -> None:
    for stepping, name, peer in (
        (envpool_games, "`AtariEnvPool`", "`make_atari_env`"),
        (envpool_mujoco, "`EnvPoolVecEnv`, HalfCheetah-v5", "`make_vec_env`"),
    ):
        ratio, mine, theirs = alone(stepping, threads, rounds)
        label = f"8 environments alone, {name} on {threads} thread{'s' * (threads > 1)}, against {peer}"
        print_row(label, f"{ratio:.2f}x", f"{mine:,.0f} steps/s", f"{theirs:,.0f} steps/s", "", "")


if __name__ == "__main__":
    main(sys.argv[1:])
