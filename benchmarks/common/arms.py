"""
List the algorithms that are compared, with their names in commands and result folders and their labels in tables.

A folder of results may also hold a variant, which is an algorithm of this list with other settings.
"""

from dataclasses import dataclass

import sb3_contrib
from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_trpo import TRPO, MaskableTRPO, RecurrentTRPO, VineTRPO

OURS, PEER = "sb3_trpo", "sb3_contrib_trpo"


@dataclass(frozen=True)
class Algorithm:
    """
    One algorithm of a comparison.

    :param label: its name in tables and pictures
    :param package: the package that it comes from, which serves as its label beside one algorithm of another package
    :param cls: its class
    :param zoo_name: its name in RL Zoo, where two of them share one
    """

    label: str
    package: str
    cls: type[OnPolicyAlgorithm]
    zoo_name: str


ALGORITHMS = {
    OURS: Algorithm("sb3-trpo", "sb3-trpo", TRPO, "trpo"),
    "sb3_vine_trpo": Algorithm("vine", "sb3-trpo", VineTRPO, "vine_trpo"),
    PEER: Algorithm("sb3-contrib TRPO", "sb3-contrib", sb3_contrib.TRPO, "trpo"),
    "sb3_ppo": Algorithm("SB3 PPO", "stable-baselines3", PPO, "ppo"),
    "sb3_trpo_lstm": Algorithm("RecurrentTRPO", "sb3-trpo", RecurrentTRPO, "trpo_lstm"),
    "sb3_ppo_lstm": Algorithm("RecurrentPPO", "sb3-contrib", sb3_contrib.RecurrentPPO, "ppo_lstm"),
    "sb3_maskable_trpo": Algorithm("MaskableTRPO", "sb3-trpo", MaskableTRPO, "maskable_trpo"),
}
VARIANTS = {
    "sb3_trpo_no_entropy": "ent_coef=0",
    "sb3_trpo_fixed": "target_kl=0.01",
    "sb3_trpo_batch128": "target_kl=0.01 batch_size=128",
    "sb3_trpo_paper_cnn": "policy=PaperCnnPolicy",
    "sb3_trpo_stacked": "frame_stack=4",
}
"""Folder of results -> the settings in which its runs differ from those of :data:`OURS`."""

LABELS = {name: algorithm.label for name, algorithm in ALGORITHMS.items()} | {
    name: f"{ALGORITHMS[OURS].label}, {settings}" for name, settings in VARIANTS.items()
}
"""Labels in the order of the tables."""

COLOURS = dict(zip(LABELS, [*(f"C{i}" for i in range(10)), "black", "gold"], strict=True))
"""A colour of matplotlib for each, the same in every picture."""
