"""
Measure whether a step gains on states that it was not computed from.

The gradient and the Fisher matrix come from one part of a rollout. For every damping, the script scales the direction
(F + damping I)⁻¹ g to the same KL on that part. Then it compares the surrogate's gain there and on the rest of the rollout. If
the gain is large on the part and zero on the rest, the step fits noise: raise ``cg_damping`` or the batch size. Example::

    python -m benchmarks.held_out --env Humanoid-v5 --train 300000 --batch 2048 --kl 0.03
    python -m benchmarks.held_out --env PongNoFrameskip-v4 --model runs/atari/Pong/seed0/model.zip --batch 1024 --kl 0.01
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from benchmarks.common.command_line import add_settings
from benchmarks.common.rollouts import actor_of, collect, standardised
from benchmarks.common.tables import print_head, print_row
from benchmarks.common.zoo import zoo_model
from sb3_trpo import TRPO
from sb3_trpo.arguments.hyperparameters import make_schedule
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.subsets import fisher_subsets
from sb3_trpo.step.conjugate_gradient import conjugate_gradient
from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.surrogate import Surrogate

DAMPINGS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


def rollout(model: TRPO, n_states: int) -> Batch:
    """
    Collect states with a policy that stays as it is.

    :param model: the model
    :param n_states: states to collect
    :return: the states, with the advantages that the step uses
    """
    n_steps = n_states // model.n_envs
    model.rollout_buffer.buffer_size = model.n_steps = n_steps
    model.rollout_buffer.reset()
    return standardised(collect(model))


def scaled(surrogate: Surrogate, parameters: list[th.nn.Parameter], direction: th.Tensor, kl: float) -> th.Tensor:
    """
    Scale a direction to a KL, by bisection.

    :param surrogate: of the batch
    :param parameters: the actor's, at θ_old; left there
    :param direction: shape (P,)
    :param kl: nats
    :return: the step along the direction whose KL on the batch is ``kl``
    """
    old = flatten(parameters)
    low, high, length = 0.0, np.inf, 0.02 / float(direction.norm())
    for _ in range(16):
        assign(parameters, old + length * direction)
        if surrogate.evaluate().kl > kl:
            high = length
        else:
            low = length
        length = (low + high) / 2.0 if np.isfinite(high) else 3.0 * length
    assign(parameters, old)
    return low * direction


def gains(model: TRPO, batch_size: int, kl: float, damping: float, states: Batch) -> tuple[float, float, int]:
    """
    Compute a step from a batch, and its gain there and on held-out states.

    :param model: the model
    :param batch_size: states that the step is computed from
    :param kl: nats
    :param damping: of the Fisher matrix
    :param states: the batch, and the held-out ones behind it
    :return: gain on the batch, gain on the others, products of the solver
    """
    network, parameters, chunk_size = actor_of(model, states)
    batch, others = (states.take(slice(*part)) for part in ((0, batch_size), (batch_size, len(states))))
    ent_coef = make_schedule("ent_coef", model.ent_coef)(1.0)
    inside, outside = (Surrogate(network, part, ent_coef, chunk_size) for part in (batch, others))
    thinned = fisher_subsets(np.arange(batch_size), model.fisher_sample_fraction, batch_size, (0, 0))[0]
    fisher = FisherVectorProduct(network, parameters, batch, chunk_size, th.from_numpy(thinned))
    gradient = inside.gradient(parameters)
    cg = conjugate_gradient(lambda v: fisher(v) + damping * v, gradient, model.cg_max_steps, model.cg_tol, damping)
    old = flatten(parameters)
    assign(parameters, old + scaled(inside, parameters, cg.solution, kl))
    trials = [surrogate.evaluate().surrogate - surrogate.at_old.surrogate for surrogate in (inside, outside)]
    assign(parameters, old)
    return trials[0], trials[1], cg.iterations


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Gain of a step on the batch and on held-out states, by damping.")
    parser.add_argument("--env", required=True, help="environment id")
    parser.add_argument("--train", type=float, default=100_000, help="env steps of training before")
    parser.add_argument("--model", type=Path, help="zip file of a policy to measure instead, on raw observations")
    parser.add_argument("--batch", type=int, default=2048, help="states that the step is computed from")
    parser.add_argument("--kl", type=float, default=0.02, help="nats")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1000)
    add_settings(parser)
    return parser.parse_args(arguments)


def print_gains(damping: float, rows: Sequence[tuple[float, float, int]]) -> None:
    """
    Print the means over rollouts.

    :param damping: of the Fisher matrix
    :param rows: what :func:`gains` returned for each rollout
    """
    inside, outside, products = np.array(rows).T
    error = outside.std(ddof=1) / np.sqrt(len(rows))
    print_row(f"{damping:g}", f"{inside.mean():.4f}", f"{outside.mean():.5f} ± {error:.5f}", f"{products.mean():.0f}")


def main(arguments: list[str]) -> None:
    """Train for a while with the hyperparameters of the Zoo, then measure and print."""
    options = parse(arguments)
    th.set_num_threads(1)
    model: Any = zoo_model("sb3_trpo", options.env, options.seed, options.set)
    if options.model:
        model.policy.load_state_dict(TRPO.load(options.model, device="cpu").policy.state_dict())
    else:
        model.learn(options.train)
    measured: dict[float, list[tuple[float, float, int]]] = {damping: [] for damping in DAMPINGS}
    for _ in range(options.repeats):
        states = rollout(model, 5 * options.batch)
        for damping, rows in measured.items():
            rows.append(gains(model, options.batch, options.kl, damping, states))
    print_head("cg_damping", "gain on the batch", "gain on held-out states", "products")
    for damping, rows in measured.items():
        print_gains(damping, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
