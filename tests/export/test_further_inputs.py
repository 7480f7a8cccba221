"""Files take masks and memory as ``predict`` does: the same actions, and the same memory for the next step."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch as th
from gymnasium import spaces

from sb3_trpo import TRPO, MaskableRecurrentTRPO, MaskableTRPO, MlpLstmPolicy, RecurrentTRPO
from sb3_trpo.distributions.action_masks import MaskLayout
from sb3_trpo.export.further_inputs import ActionMasks, Booleans, inputs_of, takes_masks
from sb3_trpo.export.preparation import preparation_of
from sb3_trpo.policies.sequences import RecurrentStates
from tests.export.models import assert_same_actions, make_model, normalized_env, onnx_session
from tests.helpers import perturb
from tests.masked_envs import SPACES, MaskedEnv
from tests.recurrent_helpers import KINDS, SMALL
from tests.toy_envs import ACTIONS, OBSERVATIONS, VECTOR, RandomEnv

SETTINGS: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "seed": 0, "device": "cpu"}
SOME = spaces.Dict({"vector": VECTOR, "discrete": spaces.Discrete(3)})
CASES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"actions": "discrete"},
    "two_layers": {"actions": "multi_discrete"},
    "two_layers_gru": {"policy": "MultiInputLstmPolicy", "observations": SOME},
    "shared": {"actions": "multi_binary"},
    "critic_without": {"policy": "CnnLstmPolicy", "observations": OBSERVATIONS["image"]},
}
"""For each of ``KINDS`` a policy, observations and actions."""


def recurrent_model(kind: str = "lstm", masked: bool = False, **kwargs: Any) -> RecurrentTRPO:
    case = {"policy": "MlpLstmPolicy", "observations": VECTOR, "actions": "box", **CASES[kind], **kwargs}
    make_env, cls = (MaskedEnv, MaskableRecurrentTRPO) if masked else (RandomEnv, RecurrentTRPO)
    env = case.get("env") or make_env(observation_space=case["observations"], action_space=ACTIONS[case["actions"]])
    model = cls(case["policy"], env, **SETTINGS, policy_kwargs={**SMALL, **KINDS[kind]})
    perturb([*policy_of(model).lstm_actor.parameters(), model.policy.action_net.weight], 1.0)
    return model


def policy_of(model: RecurrentTRPO) -> MlpLstmPolicy:
    assert isinstance(model.policy, MlpLstmPolicy)
    return model.policy


def maskable_model(actions: str, **kwargs: Any) -> MaskableTRPO:
    model = MaskableTRPO("MlpPolicy", MaskedEnv(ACTIONS[actions], **kwargs), **SETTINGS)
    perturb([model.policy.action_net.weight], 1.0)
    return model


class Loaded:
    """A file that was loaded, with named inputs and outputs for both formats."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".onnx":
            self.session = onnx_session(path)
            self.metadata = dict(self.session.get_modelmeta().custom_metadata_map)
            self.shapes = {part.name: (part.shape, part.type) for part in self.session.get_inputs()}
        else:
            files = {"metadata.json": ""}
            self.program: Any = th.export.load(path, extra_files=files).module()
            self.session = None
            self.metadata = {key: json.dumps(value) for key, value in json.loads(files["metadata.json"]).items()}
        self.inputs, self.outputs = json.loads(self.metadata["inputs"]), json.loads(self.metadata["outputs"])
        self.memory: dict[str, str] = json.loads(self.metadata["memory"])

    def __call__(self, **values: np.ndarray) -> dict[str, np.ndarray]:
        if self.session is not None:
            return dict(zip(self.outputs, self.session.run(None, values), strict=True))
        found = self.program(*(th.as_tensor(values[name]) for name in self.inputs))
        return {name: part.detach().numpy() for name, part in zip(self.outputs, found, strict=True)}


def exported(model: TRPO, path: Path, **kwargs: Any) -> Loaded:
    """Export a model in the format of the path's suffix."""
    return Loaded((model.export_onnx if path.suffix == ".onnx" else model.export_torch)(path, **kwargs))


def named(observations: Any) -> dict[str, np.ndarray]:
    if isinstance(observations, dict):
        return {f"observation.{key}": part for key, part in observations.items()}
    return {"observation": observations}


def draw(space: spaces.Space[Any], n: int) -> Any:
    """Observations, other ones in each call: shape (n, ...), or a dict of such."""
    rows = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in space.spaces}
    return np.stack(rows)


def random_masks(model: TRPO, n: int, rng: np.random.Generator) -> np.ndarray:
    layout = MaskLayout.of(model.action_space)
    masks = rng.random((n, layout.size)) < 0.3
    for row in masks:
        row[layout.starts + rng.integers(layout.sizes)] = True
    return masks


def run_episodes(model: RecurrentTRPO, file: Loaded, space: spaces.Space[Any], n: int, prepare: Any = lambda obs: obs) -> None:
    """Act for 50 steps with the file and with ``predict``, each with its own memory, and compare all actions."""
    rng = np.random.default_rng(3)
    rnn = policy_of(model).lstm_actor
    memory = {name: np.zeros((n, rnn.num_layers, rnn.hidden_size), dtype=np.float32) for name in file.memory}
    state, starts = None, np.ones(n, dtype=bool)
    taken = []
    space.seed(4)
    for _ in range(50):
        observations = draw(space, n)
        further: dict[str, Any] = {"action_masks": random_masks(model, n, rng)} if takes_masks(model) else {}
        found = file(**named(observations), **further, **memory, episode_start=starts)
        expected, state = model.predict(prepare(observations), state, starts, deterministic=True, **further)
        assert_same_actions(found["action"], expected)
        assert state is not None
        for part, name in zip(state, ("h", "c"), strict=False):
            np.testing.assert_allclose(found[f"next_{name}"], part.swapaxes(0, 1), rtol=1e-5, atol=1e-5)
        memory = {name: found[after] for name, after in file.memory.items()}
        starts = rng.random(n) < 0.1
        taken.append(expected)
    assert len(np.unique(np.concatenate(taken).reshape(50 * n, -1), axis=0)) > 1


def test_every_kind_of_memory_has_a_case() -> None:
    assert CASES.keys() == KINDS.keys()
    assert {case.get("policy", "MlpLstmPolicy") for case in CASES.values()} == RecurrentTRPO.policy_aliases.keys()
    assert {case.get("actions", "box") for case in CASES.values()} == ACTIONS.keys() - {"box_matrix"}


@pytest.mark.parametrize("kind", KINDS)
def test_memory_goes_on_as_in_predict(kind: str, tmp_path: Path) -> None:
    model = recurrent_model(kind)
    file = exported(model, tmp_path / "policy.onnx")
    for n in (1, 7):
        run_episodes(model, file, CASES[kind].get("observations", VECTOR), n)


@pytest.mark.parametrize("kind", ["lstm", "two_layers_gru"])
def test_torch_goes_on_as_in_predict(kind: str, tmp_path: Path) -> None:
    space = CASES[kind].get("observations", VECTOR)
    env = normalized_env(RandomEnv(space), norm_obs_keys=["vector"] if isinstance(space, spaces.Dict) else None)
    model = recurrent_model(kind, env=env)
    run_episodes(model, exported(model, tmp_path / "policy.pt2"), space, 7, env.normalize_obs)


@pytest.mark.parametrize(("kind", "actions"), [("lstm", "multi_discrete"), ("gru", "multi_binary"), ("shared", "discrete")])
def test_masks_and_memory_together(kind: str, actions: str, tmp_path: Path) -> None:
    model = recurrent_model(kind, masked=True, actions=actions)
    suffix = ".onnx" if kind == "lstm" else ".pt2"
    run_episodes(model, exported(model, tmp_path / f"policy{suffix}"), VECTOR, 7)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("actions", SPACES)
def test_masks_forbid_what_they_forbid_in_predict(actions: str, suffix: str, tmp_path: Path) -> None:
    model = maskable_model(actions)
    file = exported(model, tmp_path / f"policy{suffix}", outputs=["action", "log_prob", "probabilities"])
    layout = MaskLayout.of(model.action_space)
    for n in (1, 7, 100):
        observations, masks = draw(VECTOR, n), random_masks(model, n, np.random.default_rng(n))
        found = file(observation=observations, action_masks=masks)
        assert_same_actions(found["action"], model.predict(observations, deterministic=True, action_masks=masks)[0])
        assert len(layout.forbidden(masks, found["action"])) == 0
        assert (found["log_prob"] <= 1e-6).all()
        allowed = masks if actions != "multi_binary" else masks[:, 1::2]
        assert (found["probabilities"][~allowed] == 0.0).all()  # not only small
    free = np.ones_like(masks)
    assert_same_actions(
        file(observation=observations, action_masks=free)["action"], model.predict(observations, deterministic=True)[0]
    )
    assert (found["action"] != file(observation=observations, action_masks=free)["action"]).any()
    if actions != "multi_binary":  # the documented answer to a mask that allows nothing
        nothing = file(observation=observations, action_masks=~free)
        assert not nothing["action"].any()
        assert np.isnan(nothing["probabilities"]).all()


@pytest.mark.parametrize("kind", ["lstm", "shared", "critic_without"])
def test_the_critic_keeps_its_memory(kind: str, tmp_path: Path) -> None:
    model = recurrent_model(kind, policy="MlpLstmPolicy", observations=VECTOR)
    perturb(list(model.policy.parameters()), 0.3)
    file = exported(model, tmp_path / "policy.pt2", outputs=["value", "action"])
    own = kind == "lstm"
    assert list(file.memory) == (["h", "c", "critic_h", "critic_c"] if own else ["h", "c"])
    memory = {name: np.zeros((2, 1, 5), dtype=np.float32) for name in file.memory}
    zeros = tuple(th.zeros(1, 2, 5) for _ in range(2))
    state = RecurrentStates(zeros, zeros)
    values = []
    for step in range(4):
        observations, starts = draw(VECTOR, 2), np.array([step == 0, step == 2])
        found = file(observation=observations, **memory, episode_start=starts)
        with th.no_grad():
            _, value, _, state = model.policy(th.as_tensor(observations), state, th.as_tensor(starts), deterministic=True)
        np.testing.assert_allclose(found["value"], value.flatten(), atol=1e-5)
        memory = {name: found[after] for name, after in file.memory.items()}
        values.append(found["value"])
    assert len(np.unique(np.round(values, 3))) > 4


def test_names_shapes_and_types(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    file = exported(recurrent_model("two_layers", masked=True), path)
    memory = (["batch", 2, 5], "tensor(float)")
    assert file.shapes == {
        "observation": (["batch", 3], "tensor(float)"),
        "action_masks": (["batch", 5], "tensor(bool)"),
        "h": memory,
        "c": memory,
        "episode_start": (["batch"], "tensor(bool)"),
    }
    assert file.outputs == ["action", "next_h", "next_c"]
    assert file.memory == {"h": "next_h", "c": "next_c"}
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("LSTM") == 2


def test_an_export_leaves_memory_and_random_numbers_alone(tmp_path: Path) -> None:
    parameters = []
    for exports in (False, True):
        model = recurrent_model("lstm", masked=True, actions="discrete").learn(16)
        if exports:
            model.export_torch(tmp_path / "policy", outputs=["action", "value"])
        model.learn(16, reset_num_timesteps=False)
        parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*parameters)


def test_other_models_have_neither(tmp_path: Path) -> None:
    model = make_model()
    preparation = preparation_of(model, "auto", None)
    assert inputs_of(model, preparation, ["action"]) == preparation.inputs(model.observation_space)
    assert exported(model, tmp_path / "policy.pt2").memory == {}


def test_random_masks_allow_something() -> None:
    layout = MaskLayout.of(ACTIONS["multi_discrete"])
    space = ActionMasks(layout)
    space.seed(0)
    drawn = np.stack([space.sample() for _ in range(200)])
    assert np.array_equal(layout.read(drawn, 200, str), drawn)
    assert len(np.unique(drawn, axis=0)) == 3 * 7  # every mask that allows something
    starts = Booleans((500,), share=0.1)
    starts.seed(0)
    assert 20 < starts.sample().sum() < 80
