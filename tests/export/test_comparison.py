"""A file that would act differently is refused; choices may differ only where they are equally probable."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_trpo import TRPO
from sb3_trpo.export.comparison import Comparison, ExportError
from sb3_trpo.export.further_inputs import inputs_of
from sb3_trpo.export.module import ExportedPolicy
from sb3_trpo.export.preparation import preparation_of
from sb3_trpo.export.program import traced_program
from tests.export.models import make_model
from tests.export.test_further_inputs import maskable_model, recurrent_model
from tests.helpers import DoubleFlatten, Experts, perturb


def comparison_of(model: TRPO, outputs: Sequence[str] = ("action",)) -> Comparison:
    preparation = preparation_of(model, "auto", None)
    return Comparison(preparation, ExportedPolicy(model, inputs_of(model, preparation, outputs), outputs))


def run_of(compared: Comparison, change: Any = lambda outputs: outputs) -> Any:
    def run(values: Sequence[np.ndarray]) -> Any:
        with th.no_grad():
            return change([part.numpy().copy() for part in compared.module(*map(th.as_tensor, values))])

    return run


@pytest.mark.parametrize("actions", ["box", "discrete", "multi_discrete", "multi_binary"])
def test_one_action_that_differs_is_found(actions: str) -> None:
    compared = comparison_of(make_model(actions=actions))
    compared.check(run_of(compared))

    def change(outputs: list[np.ndarray]) -> list[np.ndarray]:
        last = outputs[0].reshape(len(outputs[0]), -1)[-1]  # a view
        last[-1] = last[-1] + 2e-5 if actions == "box" else 1 - min(last[-1], 1)
        return outputs

    with pytest.raises(ExportError, match=r"its action is .*, and the model's is"):
        compared.check(run_of(compared, change))


@pytest.mark.parametrize("name", ["value", "log_prob", "probabilities"])
def test_another_output_that_differs_is_found(name: str) -> None:
    compared = comparison_of(make_model(actions="discrete"), ["action", name])
    compared.check(run_of(compared))
    with pytest.raises(ExportError, match=f"its {name} is"):
        compared.check(run_of(compared, lambda outputs: [outputs[0], outputs[1] + np.float32(0.01)]))


@pytest.mark.parametrize("part", [1, 2])
def test_a_memory_that_differs_is_found(part: int) -> None:
    compared = comparison_of(recurrent_model())
    compared.check(run_of(compared))

    def change(outputs: list[np.ndarray]) -> list[np.ndarray]:
        outputs[part][-1, -1, -1] += 1e-4
        return outputs

    with pytest.raises(ExportError, match=f"its next_{'hc'[part - 1]} is"):
        compared.check(run_of(compared, change))


def test_what_differs_after_some_steps_is_found() -> None:
    compared = comparison_of(recurrent_model())
    steps = 0

    def change(outputs: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal steps
        steps += 1
        outputs[0][0] = 0.25 if steps == 50 else outputs[0][0]
        return outputs

    with pytest.raises(ExportError, match="its action is"):
        compared.check(run_of(compared, change))


def test_rounding_that_a_chaotic_memory_amplifies_is_no_difference() -> None:
    model = recurrent_model()
    perturb(model.policy.parameters(), 3.0)
    compared = comparison_of(model)
    rng = np.random.default_rng(0)

    def rounded(outputs: list[np.ndarray]) -> list[np.ndarray]:
        return [part + np.float32(1e-6) * rng.uniform(-1.0, 1.0, part.shape).astype(np.float32) for part in outputs]

    compared.check(run_of(compared, rounded))


def test_a_file_that_ignores_its_masks_is_found() -> None:
    compared = comparison_of(maskable_model("multi_binary"))
    run = run_of(compared)
    with pytest.raises(ExportError, match="its action is"):
        compared.check(lambda values: run([values[0], np.ones_like(values[1])]))


def test_equally_probable_choices_may_differ() -> None:
    model = make_model(actions="discrete")
    with th.no_grad():
        for parameter in model.policy.action_net.parameters():
            parameter.zero_()
    compared = comparison_of(model)
    compared.check(run_of(compared, lambda outputs: [outputs[0] + 1]))


def test_another_type_or_shape_is_found() -> None:
    compared = comparison_of(make_model(actions="discrete"))
    with pytest.raises(ExportError, match=r"the action as int32 of shape \(1,\), not as int64 of shape \(1,\)"):
        compared.check(run_of(compared, lambda outputs: [outputs[0].astype(np.int32)]))


class Branching(Experts):
    """Chooses a layer by the batch, which a trace cannot follow."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        rows = DoubleFlatten.forward(self, observations).float()
        features: th.Tensor = self.positive(rows) if rows.sum() > 0.0 else self.negative(rows)
        return features


def test_a_branch_that_depends_on_the_observations_is_refused() -> None:
    model = make_model(policy_kwargs={"features_extractor_class": Branching})
    with pytest.raises(ExportError, match=r"torch.export cannot trace the policy: .*data-dependent"):
        traced_program(comparison_of(model).module)
