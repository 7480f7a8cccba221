"""Lets a policy load its file without running anything in it."""

from typing import Any, Self

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_trpo.reading.policy_files import ReadPath, load_policy


class SafelyLoaded(ActorCriticPolicy):
    """
    A policy whose ``load`` runs nothing of the file, unlike SB3's.

    :param args: arguments of SB3's policy
    :param kwargs: keyword arguments of SB3's policy
    """

    @classmethod
    def load(
        cls,
        path: ReadPath,
        device: th.device | str = "auto",
        trusted: bool = False,
        custom_objects: dict[str, Any] | None = None,
    ) -> Self:
        """
        Load a policy that :meth:`save` wrote; nothing in the file runs.

        :param path: path of the file, or a file object
        :param device: device to load to
        :param trusted: whether to let the file run whatever code it contains, as SB3's ``load`` does
        :param custom_objects: arguments of the policy that replace those of the file; not for a trusted file
        :return: the policy
        :raises ValueError: if the file is damaged, or contains something that cannot be rebuilt without running it
        """
        return load_policy(cls, path, device, trusted, custom_objects)
