"""Chooses between arithmetic by hand and by torch."""

from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.by_hand import HandActor
from sb3_trpo.actor.interface import ActorNetwork
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.actor.plain_recurrent import PlainRecurrentPolicy
from sb3_trpo.policies.interface import PolicyInterface
from sb3_trpo.policies.recurrent_interface import RecurrentInterface


def plain_policy(interface: PolicyInterface) -> PlainPolicy | Reason:
    """
    Recognise a policy whose arithmetic may be done by hand.

    :param interface: interface to the policy
    :return: the policy as a plain one; otherwise the first reason why not
    """
    if type(interface) is RecurrentInterface:
        return PlainRecurrentPolicy.of(interface.policy)
    if type(interface) is not PolicyInterface:  # which may compute something else than its policy
        return Reason(f"the policy is called through a {type(interface).__name__}")
    return PlainPolicy.of(interface.policy)


def actor_network(interface: PolicyInterface, plain: PlainPolicy | Reason) -> ActorNetwork:
    """
    Choose how to differentiate the actor: by hand for a plain policy on the CPU, otherwise by autograd.

    :param interface: interface to the policy, in evaluation mode
    :param plain: the same policy as a plain one, or the reason why it is not plain
    :return: the actor
    """
    on_cpu = interface.policy.device.type == "cpu"
    if on_cpu and not isinstance(plain, Reason) and not isinstance(plain.actor, Reason) and plain.actor.differentiable:
        return HandActor(plain)
    return AutogradActor(interface)
