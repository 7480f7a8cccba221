"""What an exported file tells about itself."""

import json
from importlib.metadata import version
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_trpo.export.further_inputs import next_name
from sb3_trpo.export.inputs import Preparation, statistics_by_key
from sb3_trpo.export.module import ExportedPolicy

_VERSIONS = {"sb3_trpo": "sb3-trpo", "stable_baselines3": "stable-baselines3", "torch": "torch", "gymnasium": "gymnasium"}


def metadata_of(model: OnPolicyAlgorithm, preparation: Preparation, module: ExportedPolicy) -> dict[str, Any]:
    """
    Describe an exported policy in plain values.

    :param model: the model
    :param preparation: the way of its observations to its policy
    :param module: the exported policy
    :return: versions of the packages; class of algorithm and policy; the spaces of the environment; the inputs, outputs, the
        number of env steps of the training, the output that is the next value of each input of the memory, and the number of
        observations in the statistics, or None without statistics
    """
    counts = [float(each.count) for each in statistics_by_key(preparation.vec_normalize).values()]
    return {
        **{name: version(package) for name, package in _VERSIONS.items()},
        "algorithm": type(model).__name__,
        "policy": type(model.policy).__name__,
        "num_timesteps": model.num_timesteps,
        "observation_space": described_space(preparation.space),
        "action_space": described_space(model.action_space),
        "inputs": [each.name for each in module.inputs],
        "outputs": list(module.outputs),
        "memory": {each.name: next_name(each.name) for each in module.inputs if each.field == "memory"},
        "normalized_inputs": [each.name for each in module.inputs if each.normalizes],
        "observations_in_statistics": max(counts, default=None),
    }


def described_space(space: spaces.Space[Any]) -> dict[str, Any]:
    """
    Describe a space in plain values.

    :param space: a Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these
    :return: its class, shape and dtype, and its bounds or numbers of values; a bound that all numbers share is one number, and
        an infinite one is the string "inf" or "-inf"
    """
    if isinstance(space, spaces.Dict):
        return {"class": "Dict", "spaces": {key: described_space(part) for key, part in space.spaces.items()}}
    described: dict[str, Any] = {"class": type(space).__name__, "shape": list(space.shape or ()), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Box):
        described |= {"low": _plain(space.low), "high": _plain(space.high)}
    elif isinstance(space, spaces.MultiDiscrete):
        described["nvec"] = space.nvec.tolist()
    elif isinstance(space, spaces.Discrete | spaces.MultiBinary):
        described["n"] = np.asarray(space.n).tolist()
    return described


def _plain(bounds: np.ndarray) -> Any:
    """Turn bounds into lists that JSON can hold."""
    if bounds.size and (bounds == bounds.flat[0]).all():
        bounds = bounds.flat[0]
    return json.loads(json.dumps(np.asarray(bounds).tolist()), parse_constant=lambda name: name.replace("inity", "").lower())
