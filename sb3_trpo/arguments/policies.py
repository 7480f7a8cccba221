"""Checks of the policy: that TRPO can train its class, and that the present conditions let it learn."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch as th
from stable_baselines3.common.policies import (
    ActorCriticCnnPolicy,
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)

from sb3_trpo.checks import described
from sb3_trpo.policies.aliases import CnnPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.beta import BetaCnnPolicy, BetaMlpPolicy, BetaMultiInputPolicy
from sb3_trpo.policies.maskable import (
    MaskableCnnPolicy,
    MaskableMlpPolicy,
    MaskableMultiInputPolicy,
    is_contrib_maskable,
)
from sb3_trpo.policies.recurrent import CnnLstmPolicy, MlpLstmPolicy, MultiInputLstmPolicy

_CALLS = {"forward": 1, "get_distribution": 1, "predict_values": 1, "evaluate_actions": 2}
"""Methods through which feed-forward policies are called, with their number of arguments: observations, and actions."""


def why_not_trainable(policy_class: Any) -> str | None:
    """
    Tell why TRPO cannot train policies of a class through :class:`~sb3_trpo.policies.interface.PolicyInterface`.

    :param policy_class: any class, or anything else
    :return: the reason; None if it can: the class is an actor-critic policy that needs the observations only
    """
    if not isinstance(policy_class, type):
        return "is not a class"
    if not issubclass(policy_class, ActorCriticPolicy):
        return "is not a subclass of ActorCriticPolicy"
    for name, n_arguments in _CALLS.items():
        try:
            inspect.signature(getattr(policy_class, name)).bind(*[None] * (1 + n_arguments))
        except TypeError as error:
            return f"needs more than observations ({name}: {error}), as recurrent policies do; RecurrentTRPO has them"
    return None


def why_not_maskable(policy_class: Any) -> str | None:
    """
    Tell why TRPO with action masks cannot train policies of a class.

    :param policy_class: any class, or anything else
    :return: the reason; None if it can: TRPO can, or the class is one of sb3-contrib's maskable policies
    """
    return None if is_contrib_maskable(policy_class) else why_not_trainable(policy_class)


def check_policy_class(
    policy_class: Any,
    aliases: Iterable[str],
    own_interface: bool,
    why_not: Callable[[Any], str | None] = why_not_trainable,
) -> None:
    """
    Check that an algorithm can train policies of a class.

    :param policy_class: the class that the user gives or names
    :param aliases: names of policies that may be given instead
    :param own_interface: whether the algorithm calls policies through its own interface, which may suit any class
    :param why_not: tells why the algorithm cannot train policies of a class, or None if it can
    :raises TypeError: saying why it cannot and what is needed
    """
    reason = why_not(policy_class)
    if reason is None or (own_interface and isinstance(policy_class, type) and issubclass(policy_class, BasePolicy)):
        return
    hint = "; it takes action masks: use MaskableTRPO" if is_contrib_maskable(policy_class) else ""
    raise TypeError(
        f"`policy` must be one of the names {', '.join(aliases)}, or a subclass of Stable-Baselines3's ActorCriticPolicy "
        f"without recurrence and masks; {described(policy_class)} {reason}{hint}"
    )


STANDARD = (
    ActorCriticPolicy,
    ActorCriticCnnPolicy,
    MultiInputActorCriticPolicy,
    CnnPolicy,
    PaperCnnPolicy,
    MultiInputPolicy,
    BetaMlpPolicy,
    BetaCnnPolicy,
    BetaMultiInputPolicy,
    MaskableMlpPolicy,
    MaskableCnnPolicy,
    MaskableMultiInputPolicy,
    MlpLstmPolicy,
    CnnLstmPolicy,
    MultiInputLstmPolicy,
)
"""Policies whose networks SB3's ``MlpExtractor`` builds from ``net_arch``. It ignores keys that it does not know."""


def check_net_arch(policy_class: Any, policy_kwargs: Any) -> None:
    """
    Check the keys of ``net_arch``. Custom policies are not checked, because they may know other keys.

    :param policy_class: the class that the user gives or names
    :param policy_kwargs: its arguments
    :raises ValueError: naming the keys that the standard policies do not know
    """
    net_arch = policy_kwargs.get("net_arch") if isinstance(policy_kwargs, dict) else None
    if isinstance(net_arch, list) and net_arch:  # SB3 reads the first element if that is a dict
        net_arch = net_arch[0]
    if policy_class not in STANDARD or not isinstance(net_arch, dict):
        return
    unknown = ", ".join(described(key) for key in net_arch if key not in ("pi", "vf"))
    if unknown:
        raise ValueError(
            "the dict `net_arch` in `policy_kwargs` must have the keys 'pi' (actor) and 'vf' (critic) only; "
            f"{policy_class.__name__} has no network for {unknown}"
        )


def check_can_learn(policy: Any) -> None:
    """
    Check that gradients can be computed, and that the policy is called directly.

    :param policy: the policy of a model
    :raises RuntimeError: under ``torch.inference_mode`` or ``torch.no_grad``, or if the policy was made under the former
    :raises TypeError: if the policy was replaced by another module, such as the result of ``torch.compile``
    """
    for name, active in (("inference_mode", th.is_inference_mode_enabled()), ("no_grad", not th.is_grad_enabled())):
        if active:
            raise RuntimeError(f"training needs gradients, which torch.{name}() switches off: call `learn` outside of it")
    if not isinstance(policy, BasePolicy):
        compiled = hasattr(policy, "_orig_mod")
        remedy = (
            "torch.compile has wrapped it, and Fisher-vector products need second derivatives, which compiled modules "
            "lack: set `model.policy = model.policy._orig_mod` before `learn`, and compile a trained policy"
            if compiled
            else "wrap the networks inside the policy instead"
        )
        raise TypeError(f"`model.policy` must be a policy, not {described(policy)}; {remedy}")
    if any(tensor.is_inference() for tensor in (*policy.parameters(), *policy.buffers())):
        raise RuntimeError(
            "the policy was made or loaded under torch.inference_mode(), so its parameters have no gradients: "
            "make or load the model outside of it"
        )
