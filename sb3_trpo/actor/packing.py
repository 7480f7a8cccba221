"""Sequences of different lengths, packed: all first steps, then all second steps, and so on, the longest sequences first."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Memory: TypeAlias = tuple[Array, ...]
"""State of a recurrent layer or of several, each array of shape (U, n_layers, hidden)."""


class Sequences(NamedTuple):
    """
    The inputs of a recurrent network: U sequences, one after another, B steps in all.

    :param inputs: shape (B, n_in)
    :param lengths: number of steps of each, at least 1, shape (U,)
    :param memory: state before the first step of each
    """

    inputs: Array
    lengths: Array
    memory: Memory


class Packing(NamedTuple):
    """
    The places of the steps in a packed batch.

    :param positions: place of every step, sequence by sequence, shape (B,)
    :param order: the sequences from the longest to the shortest, shape (U,)
    :param edges: place of the first of the t-th steps, for every t, and B
    :param last: place of the last step of each sequence in the order, shape (U,)
    """

    positions: Array
    order: Array
    edges: list[int]
    last: Array

    @classmethod
    def of(cls, lengths: Array) -> Packing:
        """
        Pack sequences.

        :param lengths: number of steps of each, at least 1, shape (U,)
        :return: their places
        """
        order = np.argsort(-lengths, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        n_steps = int(lengths.max())
        alive = len(lengths) - np.cumsum(np.bincount(lengths, minlength=n_steps + 1))[:n_steps]
        edges = np.concatenate([[0], np.cumsum(alive)])
        first = np.cumsum(lengths) - lengths
        step = np.arange(edges[-1]) - np.repeat(first, lengths)
        positions = edges[step] + np.repeat(rank, lengths)
        return cls(positions, order, edges.tolist(), edges[lengths[order] - 1] + np.arange(len(order)))

    def pack(self, rows: Array) -> Array:
        """
        Sort rows into the packed batch.

        :param rows: sequence by sequence, shape (B, k)
        :return: packed, shape (B, k)
        """
        packed = np.empty_like(rows)
        packed[self.positions] = rows
        return packed

    def unpack(self, packed: Array) -> Array:
        """
        Sort rows back.

        :param packed: shape (B, k)
        :return: sequence by sequence, shape (B, k)
        """
        return packed.take(self.positions, axis=0)

    def previous(self, first: Array, packed: Array) -> Array:
        """
        Shift rows by one step.

        :param first: rows before the first step of each sequence in the order, shape (U, k)
        :param packed: rows of the steps, shape (B, k)
        :return: for every step the row of the step before, packed, shape (B, k)
        """
        edges = self.edges
        shifted = np.empty_like(packed)
        shifted[: edges[1]] = first
        for before, begin, end in zip(edges, edges[1:], edges[2:], strict=False):
            shifted[begin:end] = packed[before : before + end - begin]
        return shifted
