"""Environments that tell their action masks by one method, wherever they keep them."""

import copy
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_trpo.envs.mask_sources import METHOD, EnvMaskSource, find_mask_source


class MaskedVecEnv(VecEnvWrapper):
    """
    Environments with the method ``action_masks``, whatever the source of their masks is.

    sb3-contrib's ``evaluate_policy`` and ``MaskableEvalCallback``, which know only that method, find masks in infos and in
    observations through this wrapper.

    :param venv: the environments
    :param mask_source: see :class:`~sb3_trpo.MaskableTRPO`
    """

    def __init__(self, venv: VecEnv, mask_source: str = "auto") -> None:
        super().__init__(venv)
        self._name = mask_source
        self._source: EnvMaskSource | None = None

    def reset(self) -> VecEnvObs:
        """
        Reset all environments.

        :return: their first observations
        :raises ValueError: if they have no masks
        """
        self._observations = self.venv.reset()
        if self._source is None:
            self._source = find_mask_source(self.venv, self._name)
        else:
            self._source.reset()
        self._source.begin()
        return self._observations

    def step_wait(self) -> VecEnvStepReturn:
        """
        Step all environments.

        :return: observations, rewards, dones and infos
        """
        self._observations, rewards, dones, infos = self.venv.step_wait()
        if self._source is not None:
            self._source.observe(infos, dones)
        return self._observations, rewards, dones, infos

    def action_masks(self) -> np.ndarray:
        """
        Ask which actions are possible in the present states.

        :return: shape (n_envs, n), bool
        :raises ValueError: if the environments have not been reset, or a mask is none
        """
        if self._source is None:
            raise ValueError("the masks of the first states are known after `reset`")
        return self._source.masks(self._observations)

    def get_state(self) -> Any:
        """
        Save what the masks of the present states depend on here, for a run that goes on.

        :return: plain data; None before the first ``reset``
        """
        if self._source is None:
            return None
        return self._source.step, self._source.get_state(), copy.deepcopy(self._observations)

    def set_state(self, state: Any) -> None:
        """
        Restore what the masks depend on. Environments that have not been reset are left as they are.

        :param state: a result of :meth:`get_state`
        """
        if self._source is not None and state is not None:
            self._source.step, masks, observations = state
            self._source.set_state(masks)
            self._observations = copy.deepcopy(observations)

    def has_attr(self, attr_name: str) -> bool:
        """
        Tell whether the environments have an attribute.

        :param attr_name: its name
        :return: whether they have
        """
        return attr_name == METHOD or super().has_attr(attr_name)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        Call a method of the environments.

        :param method_name: its name
        :param method_args: its arguments
        :param indices: the environments; None: all
        :param method_kwargs: its keyword arguments
        :return: the result of each environment
        """
        if method_name != METHOD:
            return super().env_method(method_name, *method_args, indices=indices, **method_kwargs)
        masks = self.action_masks()
        return [masks[i] for i in self._get_indices(indices)]
