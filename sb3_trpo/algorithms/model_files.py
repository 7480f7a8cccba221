"""The part of an algorithm that writes models and policies to files, and reads them."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from sb3_trpo.export import files
from sb3_trpo.export.onnx_model import OPSET
from sb3_trpo.export.preparation import Channels, Statistics
from sb3_trpo.policies.action_graphs import detach_action_dist
from sb3_trpo.processes.launch import own_device
from sb3_trpo.rollout.collector import RolloutCollector
from sb3_trpo.saving import checkpoints
from sb3_trpo.saving.atomic import SavePath, save_aside

SelfModel = TypeVar("SelfModel", bound="ModelFiles")


class ModelFiles(RolloutCollector):
    """An algorithm that saves, exports and loads its models."""

    def save(
        self,
        path: SavePath,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        Save the model in a zip file, whole or not at all: after an error or a kill, an earlier file is as it was.

        Its folder must be writable, even if the file exists, because the file is replaced whole. Of several processes that
        share a run, only the first writes to a path.

        :param path: path of the zip file, to which ``.zip`` is added unless it has a suffix, or a file object
        :param exclude: names of attributes that should be excluded in addition to the default ones
        :param include: names of attributes that are excluded by default but should be included
        :raises OSError: if the file cannot be written
        """
        if self.workers.rank > 0 and isinstance(path, str | os.PathLike):
            return
        save_aside(path, partial(super().save, exclude=exclude, include=include))

    def export_onnx(
        self,
        path: files.ExportPath,
        *,
        vec_normalize: Statistics = "auto",
        outputs: Sequence[str] = ("action",),
        image_channels: Channels = None,
        opset: int = OPSET,
    ) -> Path:
        """
        Write the policy as an ONNX model that computes what ``predict(..., deterministic=True)`` does, from the observations
        of the environment to the actions that it receives. The file is written only after onnxruntime has computed the same as
        the model for random observations. It needs the extra ``export``. Action masks are a further input; the memory of a
        recurrent policy is an input and an output.

        :param path: the file to write, to which ``.onnx`` is added unless it has a suffix
        :param vec_normalize: the ``VecNormalize`` whose statistics standardise the observations; None: they are not
            standardised; "auto": that of the model's environment, if it has one
        :param outputs: names of the outputs: "action", "value", "log_prob" (of the action before it is clipped, nats),
            "probabilities" (of all choices)
        :param image_channels: whether the environment's images have their channels "first" or "last"; None: as the model's
            environment has them, and without an environment as the policy reads them
        :param opset: version of the ONNX operators
        :return: the path of the file
        :raises ModuleNotFoundError: if a package of the extra is missing, naming the command that installs it
        :raises ValueError: for an argument out of range; if the statistics are missing; if the policy cannot be exported, or
            its file would not do what the model does
        :raises TypeError: if ``predict`` runs custom code outside of the policy's networks and distribution
        :raises OSError: if the file cannot be written; an earlier one is as it was
        """
        return files.export_onnx(self, path, files.Choices(vec_normalize, outputs, image_channels), opset)

    def export_torch(
        self,
        path: files.ExportPath,
        *,
        vec_normalize: Statistics = "auto",
        outputs: Sequence[str] = ("action",),
        image_channels: Channels = None,
    ) -> Path:
        """
        Write the policy with ``torch.export.save``: the module of :meth:`export_onnx`, for programs that have torch.

        :param path: the file to write, to which ``.pt2`` is added unless it has a suffix
        :param vec_normalize: as for :meth:`export_onnx`
        :param outputs: as for :meth:`export_onnx`
        :param image_channels: as for :meth:`export_onnx`
        :return: the path of the file
        :raises ValueError: as for :meth:`export_onnx`
        :raises TypeError: as for :meth:`export_onnx`
        :raises OSError: if the file cannot be written; an earlier one is as it was
        """
        return files.export_torch(self, path, files.Choices(vec_normalize, outputs, image_channels))

    @classmethod
    def load(
        cls: type[SelfModel],
        path: SavePath,
        env: GymEnv | str | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trusted: bool = False,
        **kwargs: Any,
    ) -> SelfModel:
        """
        Load a model that this package's TRPO or sb3-contrib's TRPO has saved. Nothing in the file runs.

        Its attributes are rebuilt as plain data and known classes. One that would need code of the file is left out with a
        warning, or refused if ``predict`` needs it; ``custom_objects`` replaces it.

        :param path: path of the zip file, or a file object
        :param env: environment for further training (if registered in Gym, can be str); None: predict only, or set one later
        :param device: device to load to
        :param custom_objects: objects that replace those of the file by the names of its attributes, such as a custom
            ``policy_class``
        :param print_system_info: whether to print the system information of the saved model
        :param force_reset: whether to reset the environment before training
        :param trusted: whether to let the file run whatever code it contains, as SB3 does: only for files of people you trust
        :param kwargs: attributes to change, such as ``target_kl=0.01``; hyperparameters are checked as at construction
        :return: the model
        :raises ValueError: if the file is damaged or holds another algorithm, needs code to be rebuilt, a hyperparameter is
            out of range, or an argument such as ``use_sde`` cannot change with saved weights
        :raises TypeError: for an unknown argument
        """
        chosen: dict[str, Any] = {"env": env, "device": own_device(device), "print_system_info": print_system_info}
        read = partial(super().load, **chosen, force_reset=force_reset)
        model: SelfModel = checkpoints.load_trpo(cls, read, path, kwargs, custom_objects, trusted)
        detach_action_dist(model.policy)  # SB3 has drawn gSDE's noise
        return model

    @classmethod
    def from_ppo(
        cls: type[SelfModel],
        model: BaseAlgorithm | SavePath,
        env: GymEnv | str | None = None,
        *,
        trusted: bool = False,
        custom_objects: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> SelfModel:
        """
        Make a TRPO model that continues with the policy of a trained PPO (or another on-policy) model.

        It takes over the policy with its critic, the number of env steps, and the settings that have the same meaning in PPO
        and TRPO (``n_steps``, ``gamma``, ``gae_lambda``, ``normalize_advantage``, ``ent_coef``, gSDE, ``policy_kwargs``, the
        rollout buffer, ``seed``, ``device``, ``verbose``, ``tensorboard_log``, ``stats_window_size``). All other settings
        have TRPO's defaults, or the model's values if the model is a TRPO. Frozen parameters of a model stay frozen; a file
        does not record which are frozen.

        Nothing in a file runs; see :meth:`load`.

        :param model: the model, or the zip file of a PPO model
        :param env: environment for further training; None: the model's environment
        :param trusted: whether to let the file run whatever code it contains, as SB3 does: only for files of people you trust
        :param custom_objects: objects that replace those of the file by the names of its attributes
        :param kwargs: arguments of TRPO that take precedence
        :return: the TRPO model
        :raises ValueError: if the file is damaged, if TRPO cannot train the model's policy, if there is no environment, if
            its spaces differ from the model's, or if the arguments make another policy
        """
        return checkpoints.continue_as_trpo(cls, model, env, kwargs, trusted, custom_objects)
