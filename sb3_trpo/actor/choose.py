"""The fastest exact way to differentiate an actor."""

from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.by_hand import HandActor
from sb3_trpo.actor.interface import ActorNetwork
from sb3_trpo.actor.plain_policy import PlainPolicy, Reason
from sb3_trpo.policies.interface import PolicyInterface


def actor_network(interface: PolicyInterface, plain: PlainPolicy | Reason) -> ActorNetwork:
    """
    Choose how to differentiate the actor: by hand for a plain policy on the CPU, else by autograd.

    :param interface: of the policy, in evaluation mode
    :param plain: the same policy as a plain one, or why it is none
    :return: its actor
    """
    on_cpu = interface.policy.device.type == "cpu"
    if on_cpu and not isinstance(plain, Reason) and not isinstance(plain.actor, Reason) and plain.actor.differentiable:
        return HandActor(plain)
    return AutogradActor(interface)
