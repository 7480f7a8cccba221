"""
Compare the speed of sb3-trpo with sb3-contrib's TRPO and SB3's PPO: whole runs, the update alone, and where the time goes.

Both sides train in one process on one thread, in turns. A figure is the median over rounds of the ratio in a round (at most
five rounds for the update alone). Every case runs in a separate process, so that none inherits another's memory. Whole runs
consist of collection, update and logging, with every check switched on. ``n_steps``, ``batch_size``, ``n_critic_updates`` and
``cg_max_steps`` are equal on both sides (sb3-contrib's defaults). PPO has its own defaults. ::

    python -m benchmarks.speed --chart docs/img/speed.png  # the whole table, about 10 minutes
    python -m benchmarks.speed --quick                     # fewer rounds, under 2 minutes
    python -m benchmarks.speed --device cuda               # both sides on the GPU
"""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np

from benchmarks.common.parts import split
from benchmarks.common.picture import picture
from benchmarks.common.processes import alone
from benchmarks.common.run_record import PACKAGES
from benchmarks.common.speed_cases import OURS_ONLY, UPDATES, WHOLE_RUNS, Case
from benchmarks.common.tables import print_head, print_row, print_speed_head
from benchmarks.common.timing import Comparison, in_turns, seconds
from benchmarks.common.training_speed import Models, blank_rollout, learn, update_alone, update_memory, whole_run
from sb3_trpo import TRPO

SHARES = [("HalfCheetah-v5", 0.30, 0.50), ("Hopper-v5", 0.45, 0.65), ("Ant-v5", 0.55, 0.75)]


def compare(measure: Callable[[Models, int], Comparison], case: Case, device: str, rounds: int) -> Comparison:
    """Make the models of a case and measure them."""
    return measure(case.models(device), rounds)


def share_of_bare_env(env_id: str, rounds: int) -> Comparison:
    """Compare whole runs with random steps of the bare environment, in env steps per second."""
    model = TRPO("MlpPolicy", env_id, device="cpu", **OURS_ONLY)
    model.learn(model.n_steps)
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (model.n_steps, *(env.action_space.shape or ())))

    def bare() -> None:
        for action in actions.astype(np.float32):
            if env.step(action)[2]:
                env.reset()

    return in_turns(lambda: learn(model), lambda: seconds(bare), rounds).rates(model.n_steps)


def peak_memory(n_steps: int) -> float:
    """
    Measure the peak memory of this process in one update, beyond the rollout buffer and one flattened copy of it.

    :param n_steps: samples
    :return: MB
    """
    model = TRPO("MlpPolicy", "HalfCheetah-v5", device="cpu", **{**OURS_ONLY, "n_steps": 512})
    model.learn(512)
    model.n_steps = n_steps
    buffer = blank_rollout(model, n_steps)
    rng = np.random.default_rng(0)
    for name in ("observations", "actions", "advantages", "returns", "values"):
        array = getattr(buffer, name)
        array[:] = rng.standard_normal(array.shape)
    buffer.log_probs[:] = -8.0
    copy = sum(value.nbytes for value in vars(buffer).values() if isinstance(value, np.ndarray))
    return (update_memory(model) - copy) / 1e6


def profile(env_id: str, rounds: int, n_steps: int = 2048) -> list[tuple[str, float]]:
    """
    Split the time of a training.

    :param env_id: environment id
    :param rounds: iterations
    :param n_steps: env steps of an iteration
    :return: microseconds an env step of every part, of the rest, and of all
    """
    model = TRPO("MlpPolicy", env_id, device="cpu", **{**OURS_ONLY, "n_steps": n_steps})
    model.learn(n_steps)
    with split() as records:
        total = sum(learn(model) for _ in range(rounds))
    scale = 1e6 / (rounds * n_steps)
    rows = [(label, sum(record) * scale) for label, record in records.items()]
    rows.append(("rest", total * scale - sum(value for _, value in rows)))
    return [*rows, ("all", total * scale)]


def print_comparisons(device: str, rounds: int, quick: bool) -> dict[str, float]:
    """
    Measure and print whole runs and updates.

    :param device: of the models
    :param rounds: turns of both sides
    :param quick: whether to leave out the large update
    :return: how many times as fast as the peer, by case
    """
    ratios: dict[str, float] = {}
    for case in WHOLE_RUNS:
        ratios[case.label], mine, theirs = alone(compare, whole_run, case, device, rounds)
        print_row(case.label, f"{ratios[case.label]:.2f}x", f"{mine:,.0f} steps/s", f"{theirs:,.0f} steps/s", *case.goals())
    for case in UPDATES[: 1 if quick else None]:
        ratios[case.label], mine, theirs = alone(compare, update_alone, case, device, min(rounds, 5))
        print_row(case.label, f"{ratios[case.label]:.2f}x", f"{1e3 * mine:,.0f} ms", f"{1e3 * theirs:,.0f} ms", *case.goals())
    return ratios


def print_own_figures(rounds: int) -> None:
    """Measure and print figures without a peer: shares, memory, and where the time goes."""
    for env_id, floor, aim in SHARES:
        share, mine, bare = alone(share_of_bare_env, env_id, rounds)
        label = f"share of the bare env's rate, {env_id}"
        print_row(label, f"{share:.0%}", f"{mine:,.0f} steps/s", f"{bare:,.0f} steps/s", f"{floor:.0%}", f"{aim:.0%}")
    for n_steps in (20_480, 204_800):
        label = f"peak memory of the update beyond the buffer and a copy of it, {n_steps:,} samples"
        print_row(label, f"{alone(peak_memory, n_steps):.0f} MB", "", "", "100 MB", "")
    for env_id in ("HalfCheetah-v5", "CartPole-v1"):
        print()
        print_head(f"{env_id}: part", "µs an env step")
        for label, value in alone(profile, env_id, rounds):
            print_row(label, f"{value:.1f}")


def draw(path: Path, ratios: dict[str, float]) -> None:
    """
    Draw the ratios as bars.

    :param path: the picture to write
    :param ratios: how many times as fast as the peer, by case
    """
    labels = [re.sub(r"`|, (likewise|against sb3-contrib TRPO)| \(.*\)", "", label) for label in ratios]
    labels = [re.sub(r", against (.*)", r" (peer: \1)", label) for label in labels]
    with picture(path, 120, figsize=(8, 0.36 * len(labels) + 0.8)) as (_, axes):
        bars = axes.barh(
            labels, list(ratios.values()), color=["tab:red" if "PPO" in label else "tab:blue" for label in labels]
        )
        axes.bar_label(bars, fmt="%.1fx", padding=3)
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set(xlabel="times as fast as sb3-contrib's TRPO (blue) or SB3's PPO (red)")
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = argparse.ArgumentParser(description="Speed of sb3-trpo against its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--chart", type=Path, help="draw the ratios as bars in this file")
    parser.add_argument("--device", default="cpu", help="as torch names it; where it is not the CPU, without the last tables")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    options = parse(arguments)
    rounds = 3 if options.quick else 11
    print_speed_head(PACKAGES, options.device, rounds)
    ratios = print_comparisons(options.device, rounds, options.quick)
    if options.chart:
        draw(options.chart, ratios)
    if options.device == "cpu":
        print_own_figures(rounds)


if __name__ == "__main__":
    main(sys.argv[1:])
