"""The classes that a file may name. They are looked up, and no module is imported because a file says so."""

import sys
from importlib import import_module
from typing import Any

import numpy as np

from sb3_trpo.reading.pickles import Name, NotRebuiltError

_ACTIVATIONS = (
    "CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish PReLU RReLU ReLU ReLU6 SELU SiLU "
    "Sigmoid Softplus Softshrink Softsign Tanh Tanhshrink"
)
_OPTIMIZERS = {
    "adadelta": "Adadelta",
    "adagrad": "Adagrad",
    "adam": "Adam",
    "adamax": "Adamax",
    "adamw": "AdamW",
    "asgd": "ASGD",
    "nadam": "NAdam",
    "radam": "RAdam",
    "rmsprop": "RMSprop",
    "rprop": "Rprop",
    "sgd": "SGD",
}
_CONTRIB = "sb3_contrib.common"
_CLASSES: dict[str, str] = {
    "stable_baselines3.common.policies": "ActorCriticPolicy ActorCriticCnnPolicy MultiInputActorCriticPolicy",
    "stable_baselines3.common.torch_layers": "FlattenExtractor NatureCNN CombinedExtractor",
    "stable_baselines3.common.buffers": "RolloutBuffer DictRolloutBuffer",
    "stable_baselines3.common.sb2_compat.rmsprop_tf_like": "RMSpropTFLike",
    f"{_CONTRIB}.recurrent.policies": (
        "RecurrentActorCriticPolicy RecurrentActorCriticCnnPolicy RecurrentMultiInputActorCriticPolicy"
    ),
    f"{_CONTRIB}.recurrent.buffers": "RecurrentRolloutBuffer RecurrentDictRolloutBuffer",
    f"{_CONTRIB}.maskable.policies": (
        "MaskableActorCriticPolicy MaskableActorCriticCnnPolicy MaskableMultiInputActorCriticPolicy"
    ),
    f"{_CONTRIB}.maskable.buffers": "MaskableRolloutBuffer MaskableDictRolloutBuffer",
    "torch.nn.modules.activation": _ACTIVATIONS,
    "torch.nn.modules.linear": "Identity",
    **{f"torch.optim.{module}": name for module, name in _OPTIMIZERS.items()},
}
"""Names of allowed classes by module, separated by blanks; making an object of any of them runs only their own code."""

_OWN_POLICIES = "sb3_trpo.policies"
_OWN_KINDS = ("torch.nn.modules.module.Module", "stable_baselines3.common.buffers.BaseBuffer")


def find_class(name: Name) -> type[Any]:
    """
    Find a class that a file names.

    :param name: the name
    :return: the class
    :raises NotRebuiltError: if it is not one of those that a file may name, or its package is not installed
    """
    number = getattr(np, name.name, None) if name.module == "numpy" and name.name.isidentifier() else None
    if isinstance(number, type) and issubclass(number, np.generic):
        return number
    known = name.name in _CLASSES.get(name.module, "").split()
    own = name.module == _OWN_POLICIES or (name.module.startswith("sb3_trpo.") and name.module in sys.modules)
    if not (known or own):
        raise NotRebuiltError(f"it names {name.path}, which is none of the known classes")
    try:
        found = getattr(import_module(name.module), name.name)
    except (ImportError, AttributeError) as error:
        raise NotRebuiltError(f"it needs {name.path}, which is not installed here ({error})") from error
    if not isinstance(found, type) or (own and not _is_part_of_a_model(found)):
        raise NotRebuiltError(f"it names {name.path}, which is none of the known classes")
    return found


def _is_part_of_a_model(found: type[Any]) -> bool:
    """Tell whether a class of this package is a policy, a network or a rollout buffer."""
    own = found.__module__.partition(".")[0] in ("sb3_trpo", "stable_baselines3")
    return own and any(f"{base.__module__}.{base.__qualname__}" in _OWN_KINDS for base in found.__mro__)
