"""
Compare rules for the size of the step: is a bound on the KL more robust than a fixed penalty, as the TRPO paper claims?

The rules are TRPO, the natural gradient without a search, the KL penalty with three fixed coefficients and with an adaptive
one, and dual gradient descent; SB3's PPO stands beside them. Rollouts, networks, critic, discount and KL target are the same.
PPO has the same rollouts, networks and first standard deviation, ``VecNormalize`` for the normalisation that the others do in
their update, and SB3's defaults for the rest. The KL of every update is measured in the same way for all: on the observations
of its rollout, before against after.

The runs that are still missing are made one by one, so the command can be stopped and started again, or started several times
at once::

    python -m benchmarks.laboratory --out runs/laboratory           # trains what is missing: 320 runs of 500k steps
    python -m benchmarks.laboratory --out runs/laboratory --report  # prints the table, draws the pictures of the runs so far
"""

import argparse
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from benchmarks.common.command_line import add_evaluations, count
from benchmarks.common.curve_callbacks import CurveCallback
from benchmarks.common.environments import make_env
from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.run_queue import make_missing
from benchmarks.common.run_record import PACKAGES, write_run
from benchmarks.common.settings import FIXED_BOUND
from benchmarks.common.update_callback import UpdateCallback
from benchmarks.laboratory_report import report
from sb3_trpo import TRPO, DualTRPO, KLPenaltyTRPO, NaturalPolicyGradient

TARGET_KL: float = FIXED_BOUND["target_kl"]
SHARED: dict[str, Any] = {
    "n_steps": 1024,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "normalize_advantage": True,
    "policy_kwargs": FIXED_BOUND["policy_kwargs"],
}
OURS: dict[str, Any] = {**SHARED, **FIXED_BOUND, "cg_max_steps": 10}
ENVIRONMENTS = ("CartPole-v1", "Hopper-v5", "HalfCheetah-v5", "Walker2d-v5")
STEPS, SEEDS = 500_000, tuple(range(10))


@dataclass(frozen=True)
class Rule:
    """
    One arm of the experiment.

    :param label: its name in tables and pictures
    :param cls: the algorithm
    :param settings: in addition to those that all share
    """

    label: str
    cls: type[OnPolicyAlgorithm]
    settings: dict[str, Any] = field(default_factory=dict)


def _fixed(kl_coef: float) -> Rule:
    return Rule(f"penalty, λ = {kl_coef:g}", KLPenaltyTRPO, {**OURS, "kl_coef": kl_coef, "adaptive_kl_coef": False})


RULES = {
    "trpo": Rule("TRPO", TRPO, OURS),
    "npg": Rule("natural gradient", NaturalPolicyGradient, OURS),
    "penalty_1": _fixed(1.0),
    "penalty_3": _fixed(3.0),
    "penalty_10": _fixed(10.0),
    "penalty_adaptive": Rule("penalty, adaptive λ", KLPenaltyTRPO, OURS),
    "dual": Rule("dual descent", DualTRPO, OURS),
    "ppo": Rule("SB3 PPO", PPO, SHARED),
}
"""The arms by the names of their folders, in the order of the table."""


def make_model(name: str, env_id: str, seed: int) -> OnPolicyAlgorithm:
    """
    Make the model of one run.

    :param name: a key of :data:`RULES`
    :param env_id: environment id
    :param seed: of the run
    :return: the model
    """
    rule, env = RULES[name], make_env(env_id, 1, seed)
    if rule.cls is PPO:
        env = VecNormalize(env, gamma=SHARED["gamma"])
    return rule.cls("MlpPolicy", env, seed=seed, device="cpu", **rule.settings)


def train(options: argparse.Namespace, folder: Path, name: str, env_id: str, seed: int) -> None:
    """
    Make one run.

    :param options: of the command line
    :param folder: of the run
    :param name: a key of :data:`RULES`
    :param env_id: environment id
    :param seed: of the run
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(name, env_id, seed)
    eval_env: VecEnv = make_env(env_id, 1, seed + 10_000)
    if isinstance(model.env, VecNormalize):
        eval_env = VecNormalize(eval_env, training=False, norm_reward=False)
    labels = [name, env_id, seed]
    curve = CurveCallback(folder / "curve.csv", labels, eval_env, options.eval_freq, options.eval_episodes)
    model.learn(options.steps, callback=CallbackList([curve, UpdateCallback(folder / "updates.csv", labels, TARGET_KL)]))
    mean, std = curve.evaluate(options.final_episodes)
    arguments = ["--rule", name, "--env", env_id, "--seed", str(seed), "--steps", str(options.steps)]
    result = {"mean_return": mean, "std_return": std, "episodes": options.final_episodes}
    write_run(folder, "benchmarks.laboratory", [*arguments, "--out", str(options.out)], result, PACKAGES)
    print(f"{env_id} {name} seed {seed}: {mean:.1f} ± {std:.1f}", flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Rules for the size of the step, with equal settings otherwise.")
    parser.add_argument("--out", type=Path, default=RESULTS / "laboratory", help="folder of the runs")
    parser.add_argument("--env", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS), help="environments to train")
    parser.add_argument("--rule", nargs="+", choices=RULES, default=list(RULES), help="rules to train")
    parser.add_argument("--seed", nargs="+", type=int, default=list(SEEDS), help="seeds to train")
    parser.add_argument("--steps", type=count, default=STEPS, help="env steps of a run")
    add_evaluations(parser)
    parser.add_argument("--report", action="store_true", help="print the table and draw instead of training")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder of the pictures")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Train what is missing, or report."""
    options = parse(arguments)
    if options.report:
        report(options.out, options.pictures, {name: rule.label for name, rule in RULES.items()})
        return
    th.set_num_threads(1)
    make_missing(options.out, options.env, dict.fromkeys(options.rule, options.seed), partial(train, options))


if __name__ == "__main__":
    main(sys.argv[1:])
