"""The number of threads of torch in an update."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch as th

from sb3_trpo.actor.plain_policy import PlainPolicy, Reason, convolves


@contextmanager
def torch_in_one_thread(plain: PlainPolicy | Reason) -> Iterator[None]:
    """
    Keep torch in one thread for the length of a ``with`` block, if NumPy does the arithmetic of the update.

    Torch then has only small work left, such as the steps of the optimizer. It shares each between its threads and waits for
    all of them: on processors that other programs use too, the waiting takes ten to twenty times as long as the rest of the
    update. Convolutions and policies that autograd differentiates keep their threads.

    :param plain: the policy as a plain one, or the reason why it is not plain
    :return: the context manager, which sets the former number again
    """
    if not _in_numpy(plain):
        yield
        return
    before = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(before)


def _in_numpy(plain: PlainPolicy | Reason) -> bool:
    """Tell whether NumPy computes the networks of actor and critic and their derivatives."""
    if isinstance(plain, Reason) or plain.policy.device.type != "cpu" or convolves(plain.critic_modules):
        return False
    networks = (plain.actor, plain.critic)
    return all(not isinstance(network, Reason) and network.differentiable for network in networks)
