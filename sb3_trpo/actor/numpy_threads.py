"""The number of threads of NumPy's matrix products."""

from contextlib import AbstractContextManager
from typing import Any

from threadpoolctl import ThreadpoolController


def numpy_in_one_thread() -> AbstractContextManager[Any]:
    """
    Keep NumPy's matrix products in one thread for the length of a ``with`` block.

    Products of these sizes gain nothing from more. NumPy's OpenBLAS and torch have a pool of threads each, and idle threads of
    one spin on the processors that the other's need: on two processors an update then takes forty times as long.

    :return: the context manager, which sets the former number again
    """
    limit: AbstractContextManager[Any] = ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    return limit
