"""
Train with memory where the observations hide the state, and with masks where actions are forbidden, beside the peers.

``RecurrentTRPO`` and ``MaskableTRPO`` use their entries in ``zoo_hyperparams``, ``RecurrentPPO`` uses RL Zoo's; where there is
none, :data:`SETTINGS` has one. TRPO without memory sees the last four observations, with its defaults. The tasks of POPGym
need its package (``pip install popgym``). The runs that are still missing are made one by one, so the command can be stopped
and started again, or started several times at once::

    python -m benchmarks.memory_and_masks --out runs/memory_and_masks           # trains what is missing
    python -m benchmarks.memory_and_masks --out runs/memory_and_masks --report  # prints the table and draws the curves
"""

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common.arms import LABELS, OURS, VARIANTS
from benchmarks.common.command_line import experiment_parser
from benchmarks.common.learning_curves import draw_comparison
from benchmarks.common.paths import PICTURES, RESULTS
from benchmarks.common.run_queue import make_missing
from benchmarks.common.runs import Runs, finals, read_runs
from benchmarks.common.scores import summary, testable, welch_p
from benchmarks.common.tables import print_head, print_row
from benchmarks.common.zoo import hyperparameters

MEMORY, PPO_LSTM, STACKED, MASKS = "sb3_trpo_lstm", "sb3_ppo_lstm", "sb3_trpo_stacked", "sb3_maskable_trpo"
N_SEEDS = {MEMORY: 10, PPO_LSTM: 5, STACKED: 10, MASKS: 10, OURS: 10}
"""Number of seeds of each arm, from 0 on."""


@dataclass(frozen=True)
class Task:
    """
    One environment.

    :param steps: env steps of a run
    :param arms: what is trained, the first of them ours
    """

    steps: int
    arms: tuple[str, ...] = (MEMORY, PPO_LSTM, STACKED)


TASKS = {
    "CartPoleNoVel-v1": Task(100_000),
    "PendulumNoVel-v1": Task(100_000),
    "MountainCarContinuousNoVel-v0": Task(300_000),
    "LunarLanderNoVel-v3": Task(2_000_000),
    "popgym-PositionOnlyCartPoleHard-v0": Task(2_000_000),
    "popgym-RepeatPreviousEasy-v0": Task(2_000_000),
    "HopperNoVel-v5": Task(1_000_000),
    "Taxi-v4": Task(500_000, arms=(MASKS, OURS)),
}

_CLASS_DEFAULTS = ("policy=MlpLstmPolicy", "normalize=true", "n_envs=8")
_ONE_HOT = "env_wrapper=gymnasium.wrappers.FlattenObservation"
SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "popgym-RepeatPreviousEasy-v0": {MEMORY: (_ONE_HOT,), PPO_LSTM: (*_CLASS_DEFAULTS, _ONE_HOT), STACKED: (_ONE_HOT,)},
    "HopperNoVel-v5": {PPO_LSTM: _CLASS_DEFAULTS},
}
"""``NAME=VALUE`` besides the entry, by environment and arm. RL Zoo has no settings of ``RecurrentPPO`` for these tasks."""

SAME_ENTRY = {
    (OURS, "Taxi-v4"): (MASKS, "Taxi-v4"),
    (PPO_LSTM, "popgym-PositionOnlyCartPoleHard-v0"): (PPO_LSTM, "CartPoleNoVel-v1"),
}
"""Arms that take another one's entry: without masks the one with masks, and the longer cart-pole that of the shorter."""


def settings_of(name: str, env_id: str) -> list[str]:
    """
    List what a run has besides its entry.

    :param name: an arm
    :param env_id: a key of :data:`TASKS`
    :return: ``NAME=VALUE``
    """
    settings = [*SETTINGS.get(env_id, {}).get(name, ())]
    if name == STACKED:
        settings.append(VARIANTS[name])
    if (name, env_id) in SAME_ENTRY:
        entry = hyperparameters(*SAME_ENTRY[name, env_id])
        settings += [f"{key}={json.dumps(value)}" for key, value in entry.items() if key not in ("n_timesteps", "mask_source")]
    return settings


def train(folder: Path, name: str, env_id: str, seed: int) -> None:
    """
    Make one run in a process of its own.

    :param folder: of the run
    :param name: an arm
    :param env_id: a key of :data:`TASKS`
    :param seed: of the run
    """
    options = ["--algo", OURS if name == STACKED else name, "--env", env_id, "--steps", str(TASKS[env_id].steps)]
    options += ["--seed", str(seed), "--eval-freq", str(TASKS[env_id].steps // 50), "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "benchmarks.mujoco", *options, "--set", *settings_of(name, env_id)], check=True)
    (folder / "curve.png").unlink()
    shutil.rmtree(folder / "zoo")


def print_table(runs: Runs) -> None:
    """
    Print a row for each environment: every arm's final models, and the p-value of Welch's test against ours.

    :param runs: every run
    """
    print_head("env", "env steps", "ours", "peers (p against ours)")
    for env_id, task in TASKS.items():
        scores = {name: finals(runs.get(env_id, {}).get(name, [])) for name in task.arms}
        ours, *peers = task.arms
        cells = [f"{LABELS[name]}: {summary(scores[name])}{_p(scores[ours], scores[name])}" for name in peers]
        print_row(env_id, f"{task.steps:,}", f"{LABELS[ours]}: {summary(scores[ours])}", "<br>".join(cells))


def _p(ours: np.ndarray, peer: np.ndarray) -> str:
    return f", p = {welch_p(ours, peer):.3f}" if testable(ours, peer) else ""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line, without the program."""
    parser = experiment_parser("Memory and masks beside the peers.", RESULTS / "memory_and_masks", TASKS, N_SEEDS)
    parser.add_argument("--picture", type=Path, default=PICTURES / "memory_and_masks.png", help="where to draw the curves")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Train what is missing, or report."""
    options = parse(arguments)
    if options.report:
        runs = read_runs(options.out)
        print_table(runs)
        draw_comparison(options.picture, runs, ["steps"])
        return
    for env_id in options.env:
        arms = [name for name in TASKS[env_id].arms if name in options.algo]
        make_missing(options.out, [env_id], {name: range(N_SEEDS[name]) for name in arms}, train)


if __name__ == "__main__":
    main(sys.argv[1:])
