"""Write ``updates.csv`` while a model learns: the KL of every update, measured in the same way for every algorithm."""

import csv
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_trpo.distributions.family import DistributionFamily, Parameters
from sb3_trpo.distributions.table import distribution_family

COLUMNS = ["algorithm", "env", "seed", "step", "kl", "target_kl", "kl_coef"]


class UpdateCallback(BaseCallback):
    """
    Appends a row to a CSV file after every update.

    The KL is the mean over the observations of the rollout of KL(old‖new), nats, with the policy's distributions before and
    after the update. Its closed form is this package's, also for other algorithms.

    :param path: the CSV file
    :param labels: values of the first columns
    :param target_kl: the KL that the algorithm aims at, nats
    """

    def __init__(self, path: Path, labels: list[Any], target_kl: float) -> None:
        super().__init__()
        self._path = path
        self._labels = labels
        self._target_kl = target_kl
        self._observations: th.Tensor | None = None
        self._old: Parameters = ()
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model = self.model
        assert isinstance(model, OnPolicyAlgorithm)
        rows = model.rollout_buffer.observations.copy()
        self._observations = th.as_tensor(rows.reshape(-1, *rows.shape[2:]), device=model.device)
        self._old = self._distribution(self._observations)[1]

    def _on_rollout_start(self) -> None:
        self._measure()

    def _on_training_end(self) -> None:
        self._measure()

    def _measure(self) -> None:
        """Write the row of the update that has just ended, if there is one."""
        if self._observations is None:
            return
        family, new = self._distribution(self._observations)
        kl = family.kl_old_new(self._old, new).double().mean().item()
        kl_coef = getattr(getattr(self.model, "last_step", None), "kl_coef", None)
        self._observations = None
        with self._path.open("a", newline="") as file:
            row = [self.model.num_timesteps, f"{kl:.6g}", self._target_kl, "" if kl_coef is None else f"{kl_coef:.6g}"]
            csv.writer(file).writerow([*self._labels, *row])

    def _distribution(self, observations: th.Tensor) -> tuple[DistributionFamily, Parameters]:
        policy = self.model.policy
        with th.no_grad():
            distribution = policy.get_distribution(observations)  # type: ignore[operator]
            family = distribution_family(distribution)
            parameters = family.parameters(distribution, th.zeros(len(observations)))
        return family, tuple(part.clone() for part in parameters)
