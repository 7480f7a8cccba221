"""
Compare the gradients of vine sampling and single path for the same number of simulator calls.

The script trains a policy for a while with single path and then holds it fixed. The reference is its gradient from a very
large batch of single path, with returns to the end of the episode (λ = 1). For the gradients of small batches, the script
measures the mean cosine to the reference, and the variance divided by the squared norm of the mean. The first row shows how
good the reference is: the cosine between its two halves. On games, the policy is ``PaperCNN`` on raw images, followed by SB3's
two hidden layers. Example::

    python -m benchmarks.vine --env Hopper-v5 --train 100000 --out benchmarks/results/vine/hopper.csv
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.common.environments import is_game, make_env
from benchmarks.common.rollouts import actor_of, collect, standardised
from sb3_trpo import TRPO, VineTRPO
from sb3_trpo.policies.image_networks import PaperCNN
from sb3_trpo.update.surrogate import Surrogate

COLUMNS = ["env", "trained_steps", "estimator", "settings", "calls", "repeats", "cosine", "cosine_std", "cosine_of_mean"]
COLUMNS += ["relative_variance"]


def gradients(model: TRPO, repeats: int) -> tuple[np.ndarray, float]:
    """
    Compute gradients of the surrogate at the model's policy, which stays as it is, each from a new rollout.

    :param model: the model
    :param repeats: rollouts
    :return: shape (repeats, P); simulator calls of a rollout
    """
    before, rows = model.num_timesteps, []
    for _ in range(repeats):
        rollout = collect(model)
        model._n_updates += 1  # other branching states next time
        actor = actor_of(model, rollout)
        # standardised as in a step: with few samples a common offset of the advantages is noise
        batch = standardised(model._policy_batch(rollout))
        surrogate = Surrogate(actor.network, batch, 0.0, actor.chunk_size)
        rows.append(surrogate.gradient(actor.parameters).numpy())
    return np.array(rows), (model.num_timesteps - before) / repeats


def with_policy_of(model: TRPO, cls: type[TRPO], env: VecEnv, seed: int, **settings: Any) -> TRPO:
    """
    Make a model with the policy and the critic of another one.

    :param model: a trained model
    :param cls: class of the new one
    :param env: its environments
    :param seed: its seed
    :param settings: further hyperparameters
    :return: the new model
    """
    policy_kwargs = model.policy_kwargs
    other = cls(type(model.policy), env, seed=seed, device="cpu", policy_kwargs=policy_kwargs, gamma=model.gamma, **settings)
    other.policy.load_state_dict(model.policy.state_dict())
    return other


def measure(rows: np.ndarray, reference: np.ndarray) -> dict[str, str]:
    """
    Compare gradients with the reference.

    :param rows: gradients, shape (M, P)
    :param reference: shape (P,)
    :return: mean and standard deviation of the cosine, the cosine of the mean, which bias and the
        remaining noise keep below 1, and the relative variance
    """
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(reference)
    cosines = rows @ reference / np.maximum(norms, 1e-30)  # no branch differed from another: no gradient, no direction
    mean = rows.mean(axis=0)
    variance = ((rows - mean) ** 2).sum() / (len(rows) - 1)
    # the norm of the mean is too long by the variance of the mean
    signal = max((mean**2).sum() - variance / len(rows), 1e-30)
    return {
        "cosine": f"{cosines.mean():.4f}",
        "cosine_std": f"{cosines.std(ddof=1):.4f}",
        "cosine_of_mean": f"{mean @ reference / np.linalg.norm(mean) / np.linalg.norm(reference):.4f}",
        "relative_variance": f"{variance / signal:.3g}",
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Gradients of vine sampling against single path, at equal simulator calls.")
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--train", type=int, default=0, help="env steps of training before, with single path")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-envs", type=int, default=1)
    parser.add_argument("--reference", type=int, default=1_000_000, help="env steps of the reference")
    parser.add_argument("--calls", type=int, nargs="+", default=[2048, 8192], help="simulator calls of one gradient")
    parser.add_argument("--lengths", type=int, nargs="+", default=[4, 16, 64], help="lengths of the branches")
    parser.add_argument("--repeats", type=int, default=30, help="gradients of each kind")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    return parser.parse_args(arguments)


def train(options: argparse.Namespace) -> TRPO:
    """
    Train with single path.

    :param options: the command line
    :return: the trained model
    """
    settings: dict[str, Any] = {"gamma": 0.99, "device": "cpu", "seed": options.seed}
    game = is_game(options.env)
    if game:
        network = {"features_extractor_class": PaperCNN, "features_extractor_kwargs": {"n_images": 0}}
        settings |= {"n_steps": 1024 // options.n_envs, "policy_kwargs": network, "ent_coef": 0.01}
        settings |= {"fisher_sample_fraction": 0.1, "cg_max_steps": 10, "n_critic_updates": 2, "batch_size": 256}
    env = make_env(options.env, options.n_envs, options.seed)
    return TRPO("CnnPolicy" if game else "MlpPolicy", env, **settings).learn(options.train)


def fresh(trained: TRPO, options: argparse.Namespace, cls: type[TRPO], number: int, n_calls: int, **more: Any) -> TRPO:
    """
    Make a model with the trained policy and new environments.

    :param trained: the trained model
    :param options: the command line
    :param cls: class of the new model
    :param number: seed of the new model beyond the first of the command line
    :param n_calls: simulator calls of a rollout, those of branches apart
    :param more: further hyperparameters
    :return: the new model
    """
    seed, n_steps = options.seed + 1 + number, n_calls // options.n_envs
    env = make_env(options.env, options.n_envs, seed)
    return with_policy_of(trained, cls, env, seed, n_steps=n_steps, batch_size=n_steps, **more)


def candidates(trained: TRPO, options: argparse.Namespace, calls: int) -> list[tuple[str, str, TRPO]]:
    """
    Make a model for every estimator.

    :param trained: the trained model
    :param options: the command line
    :param calls: simulator calls of one gradient
    :return: name, settings and model of every estimator
    """
    n_envs = options.n_envs
    found: list[tuple[str, str, TRPO]] = [
        ("single path", f"gae_lambda={gae_lambda}", fresh(trained, options, TRPO, 1, calls, gae_lambda=gae_lambda))
        for gae_lambda in (0.95, 1.0)
    ]
    trunk = calls // 4
    n_actions = int(getattr(found[0][2].action_space, "n", 4))
    for length in options.lengths:
        n_states = max(n_envs, (calls - trunk) // (n_actions * length) // n_envs * n_envs)
        more = {"n_branch_states": n_states, "branch_length": length}
        text = f"trunk={trunk} states={n_states} actions={n_actions} length={length}"
        found.append(("vine", text, fresh(trained, options, VineTRPO, 2, trunk, **more)))
    return found


def estimates(trained: TRPO, options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """
    Measure the reference, and every estimator against it.

    :param trained: the trained model
    :param options: the command line
    :return: rows of the CSV file
    """
    chunk = min(options.reference, 8 * 1024 if is_game(options.env) else 64 * 1024) // options.n_envs * options.n_envs
    n_chunks = -(-options.reference // chunk)
    parts = gradients(fresh(trained, options, TRPO, 0, chunk, gae_lambda=1.0), n_chunks)[0]
    reference = parts.mean(axis=0)

    def row(name: str, settings: str, calls: float, repeats: int, measures: dict[str, str]) -> dict[str, str]:
        cells = {"env": options.env, "trained_steps": f"{options.train}", "estimator": name, "settings": settings}
        return {**cells, "calls": f"{calls:.0f}", "repeats": f"{repeats}", **measures}

    halves = measure(parts[::2], parts[1::2].mean(axis=0))["cosine_of_mean"]
    yield row("reference", "its halves", chunk * n_chunks, 1, {"cosine_of_mean": halves})
    for calls in options.calls:
        for name, settings, model in candidates(trained, options, calls):
            rows, used = gradients(model, options.repeats)
            yield row(name, settings, used, options.repeats, measure(rows, reference))


def main(arguments: list[str]) -> None:
    """Measure, and write one row an estimator."""
    options = parse(arguments)
    th.set_num_threads(1)
    trained = train(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in estimates(trained, options):
            writer.writerow(row)
            file.flush()
            print(" ".join(row.values()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
