"""Each seam carries a variant that adds one class or one function and changes nothing else."""

import ast
import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution, Distribution
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import sb3_trpo
from sb3_trpo import TRPO, DualTRPO, KLPenaltyTRPO, NaturalPolicyGradient
from sb3_trpo.actor.by_autograd import AutogradActor
from sb3_trpo.actor.choose import actor_network, plain_policy
from sb3_trpo.batch.batch import Batch
from sb3_trpo.batch.states import States
from sb3_trpo.policies.interface import Acted, Obs, PolicyInterface
from sb3_trpo.step.flat import assign, flatten
from sb3_trpo.step.report import Outcome, Trial, UnboundedReport
from sb3_trpo.step.workers import Alone
from sb3_trpo.update.fisher import FisherVectorProduct
from sb3_trpo.update.surrogate import Surrogate
from tests.helpers import actor_of, actor_parameters, batch_of, collect, make_batch, make_policy, perturb
from tests.toy_envs import OBSERVATIONS, RandomEnv

N_ACTIONS = 4


# --- what the policy sees: a policy that needs action masks ---


class MaskedEnv(RandomEnv):
    """An environment that allows half of the actions at a time; any other is an error."""

    def __init__(self) -> None:
        super().__init__(action_space=spaces.Discrete(N_ACTIONS))
        self.taken = 0

    def action_masks(self) -> np.ndarray:
        masks = np.zeros(N_ACTIONS, dtype=bool)
        masks[self.taken % 2 :: 2] = True
        return masks

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_masks()[int(action)], "a masked action was taken"
        self.taken += 1
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float(action), terminated, truncated, info


class MaskedInterface(PolicyInterface):
    """Calls a policy with the masks of the allowed actions: the only class of the variant."""

    def present(self, observations: Obs, env: VecEnv, starts: np.ndarray) -> States:
        masks = th.as_tensor(np.stack(env.env_method("action_masks")))
        return States(super().present(observations, env, starts).observations, action_masks=masks)

    def store(self, buffer: Any, step: int, states: States) -> None:
        assert states.action_masks is not None
        if step == 0:
            buffer.action_masks = np.zeros((buffer.buffer_size, buffer.n_envs, N_ACTIONS), dtype=bool)
        buffer.action_masks[step] = states.action_masks.numpy()

    def state_fields(self, rollout: Any) -> dict[str, Any]:
        return {"observations": rollout.observations, "action_masks": rollout.action_masks}

    def act(self, states: States) -> Acted:
        with th.no_grad():
            distribution = self.distribution(states)
            actions = distribution.sample()
            return Acted(actions, self.values(states), distribution.log_prob(actions))

    def distribution(self, states: States) -> Distribution:
        distribution = super().distribution(states)
        assert isinstance(distribution, CategoricalDistribution)
        assert states.action_masks is not None
        logits = distribution.distribution.logits
        return distribution.proba_distribution(logits.masked_fill(~states.action_masks, -th.inf))

    def visit(self, states: States, actions: th.Tensor) -> None:
        self.distribution(states)
        self.values(states)


class MaskedTRPO(TRPO):
    interface_class = MaskedInterface


def test_a_policy_that_needs_masks_trains_with_one_class() -> None:
    env = DummyVecEnv([MaskedEnv, MaskedEnv])
    options: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "seed": 0, "sub_sampling_factor": 2, "chunk_size": 24}
    model = MaskedTRPO("MlpPolicy", env, ent_coef=1e-3, target_kl=0.02, cg_damping=1.0, **options)
    before = th.nn.utils.parameters_to_vector(model.policy.parameters())
    kls = []
    for _ in range(4):
        model.learn(128, reset_num_timesteps=False)
        assert model.last_step is not None
        assert model.last_step.outcome is Outcome.ACCEPTED
        kls.append(model.last_step.kl)
    assert 0.005 < max(kls) <= 0.02
    batch = batch_of(collect(model))
    log_prob = actor_network(model.interface, plain_policy(model.interface)).distribution(batch.states).log_prob(batch.actions)
    th.testing.assert_close(log_prob, batch.old_log_prob)  # the update sees the policy that acted, masks included
    assert not th.equal(before, th.nn.utils.parameters_to_vector(model.policy.parameters()))


class ConstantValues(PolicyInterface):
    """Values that are not those of the policy's network."""

    calls = 0

    def values(self, states: States) -> th.Tensor:
        ConstantValues.calls += 1
        return 0.0 * super().values(states) + 7.0

    def act(self, states: States) -> Acted:
        acted = super().act(states)
        return acted._replace(values=th.full_like(acted.values, 7.0))


@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_an_interface_that_overrides_the_values_is_asked_in_the_fit_too(policy: str) -> None:
    class ConstantTRPO(TRPO):
        interface_class = ConstantValues

    env = RandomEnv(OBSERVATIONS["dict" if policy == "MultiInputPolicy" else "vector"])
    ConstantValues.calls = 0
    model = ConstantTRPO(policy, env, n_steps=16, batch_size=16, n_critic_updates=20, seed=0).learn(16)
    assert ConstantValues.calls >= 20
    assert model.rollout_buffer.values.min() == 7.0
    assert model.logger.name_to_value["train/value_loss"] == pytest.approx(
        np.mean((model.rollout_buffer.returns - 7.0) ** 2), rel=1e-3
    )


class LinearRecurrence(PolicyInterface):
    """A recurrent policy with one weight: unit Gaussians around h_t = w h_{t-1} + x_t, where h begins anew with an episode."""

    def __init__(self) -> None:
        self.weight = th.nn.Parameter(th.tensor(0.5, dtype=th.float64))

    def distribution(self, states: States) -> Distribution:
        assert isinstance(states.observations, th.Tensor)
        assert states.memory is not None
        assert states.episode_starts is not None
        means = []
        inputs, starts = th.split(states.observations, states.unit_lengths.tolist()), iter(states.episode_starts)
        for h, window in zip(states.memory[0], inputs, strict=True):
            for x in window:
                h = self.weight * th.where(next(starts), 0.0, h) + x
                means.append(h)
        mean = th.stack(means)
        return DiagGaussianDistribution(1).proba_distribution(mean, th.zeros_like(mean))


@pytest.mark.parametrize("chunk_size", [1, 2, 100])
@pytest.mark.parametrize(
    ("inputs", "episode_starts", "unit_starts", "memory", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.0], [1, 0, 0, 0], [0], [0.0], 0.640625),
        ([1.0, 0.0, 0.0, 0.0], [1, 0, 0, 0], [0, 2], [0.0, 0.5], 0.375),  # two windows, the second from its stored memory
        ([1.0, 0.0, 1.0, 0.0], [1, 0, 1, 0], [0], [9.0], 0.5),  # an episode begins within the window
        ([1.0, 0.0, 1.0, 0.0], [1, 0, 1, 0], [0, 2], [9.0, 9.0], 0.5),  # windows that end where an episode does
    ],
)
def test_windows_and_memory_give_the_fisher_matrix_of_a_recurrent_policy(
    inputs: list[float],
    episode_starts: list[int],
    unit_starts: list[int],
    memory: list[float],
    expected: float,
    chunk_size: int,
) -> None:
    x = th.tensor(inputs, dtype=th.float64)[:, None]
    states = States(
        x,
        memory=(th.tensor(memory, dtype=th.float64)[:, None],),
        episode_starts=th.tensor(episode_starts).bool(),
        unit_starts=th.tensor(unit_starts),
    )
    interface, numbers = LinearRecurrence(), th.zeros(4, dtype=th.float64)
    batch = Batch(states, x, numbers, numbers, numbers).checked()
    product = FisherVectorProduct(AutogradActor(interface), [interface.weight], batch, chunk_size)
    assert product(th.ones(1, dtype=th.float64)).item() == pytest.approx(expected, rel=1e-12)
    surrogate = Surrogate(AutogradActor(interface), batch, 0.0, chunk_size)
    assert surrogate.at_old.kl == 0.0
    assign([interface.weight], th.tensor([0.5 + 1e-4], dtype=th.float64))
    assert surrogate.evaluate().kl == pytest.approx(0.5 * expected * 1e-8, rel=1e-3)


# --- how the step is taken: the natural gradient without a search ---


def test_the_natural_gradient_is_the_first_trial_of_the_search() -> None:
    options: dict[str, Any] = {"n_steps": 256, "seed": 0, "n_critic_updates": 1, "target_kl": 0.03}
    natural = NaturalPolicyGradient("MlpPolicy", "CartPole-v1", **options).learn(256)
    searched = TRPO("MlpPolicy", "CartPole-v1", **options).learn(256)
    assert natural.last_step is not None
    assert searched.last_step is not None
    assert natural.last_step.step_fraction == 1.0
    assert natural.last_step.expected_gain == searched.last_step.expected_gain
    if searched.last_step.step_fraction == 1.0:
        assert natural.last_step == UnboundedReport.of(searched.last_step, 0.03)
    start = flatten(actor_parameters(TRPO("MlpPolicy", "CartPole-v1", **options).policy))
    steps = [flatten(actor_parameters(model.policy)) - start for model in (natural, searched)]
    th.testing.assert_close(searched.last_step.step_fraction * steps[0], steps[1], rtol=1e-4, atol=1e-6)


# --- who shares the update: two workers with half of the environments each ---


class Threads:
    """Two workers in threads, which wait for each other at every sum."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60.0)
        self.slots: list[Any] = [None] * size

    def worker(self, rank: int) -> "ThreadWorker":
        return ThreadWorker(self, rank)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.slots[rank] = value
        self.barrier.wait()
        values = list(self.slots)
        self.barrier.wait()
        return values


class ThreadWorker(Alone):
    def __init__(self, threads: Threads, rank: int) -> None:
        self.threads = threads
        self.rank = rank
        self.size = threads.size

    def sum(self, values: th.Tensor) -> th.Tensor:
        return th.stack(self.threads.exchange(self.rank, values.clone())).sum(dim=0)

    def total(self, number: float) -> float:
        return float(sum(self.threads.exchange(self.rank, number)))

    def largest(self, number: float) -> float:
        return float(max(self.threads.exchange(self.rank, number)))

    def any(self, flag: bool) -> bool:
        return any(self.threads.exchange(self.rank, flag))

    def gather(self, value: Any) -> list[Any]:
        return self.threads.exchange(self.rank, value)

    def broadcast(self, tensors: Sequence[th.Tensor]) -> None:
        for tensor in tensors:
            with th.no_grad():
                tensor.copy_(self.threads.exchange(self.rank, tensor.detach().clone())[0])


def run_together(jobs: Sequence[Callable[[], object]]) -> list[BaseException | None]:
    failures: list[BaseException | None] = [None] * len(jobs)

    def run(i: int) -> None:
        try:
            jobs[i]()
        except BaseException as error:
            failures[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


SHARED: dict[str, Any] = {
    "n_steps": 64,
    "batch_size": 64,
    "n_critic_updates": 2,
    "seed": 0,
    "target_kl": 0.01,
    "cg_damping": 1.0,
}


def part_of(whole: TRPO, envs: list[int]) -> TRPO:
    """A model with the same weights and the rollout of some of the environments."""
    env = make_vec_env("CartPole-v1", len(envs))
    part = type(whole)("MlpPolicy", env, **SHARED)
    part.policy.load_state_dict(whole.policy.state_dict())
    part._setup_learn(64 * len(envs))
    ours, theirs = part.rollout_buffer, whole.rollout_buffer
    for name in ("observations", "actions", "rewards", "returns", "values", "log_probs", "advantages", "episode_starts"):
        getattr(ours, name)[:] = getattr(theirs, name)[:, envs]
    ours.full, ours.pos = True, 64
    part.num_timesteps = 64 * len(envs)
    return part


@pytest.fixture
def whole() -> TRPO:
    return collect(TRPO("MlpPolicy", make_vec_env("CartPole-v1", 4, seed=0), **SHARED))


@pytest.mark.parametrize("split", [([0, 1], [2, 3]), ([0], [1, 2, 3])])
@pytest.mark.parametrize("cls", [TRPO, NaturalPolicyGradient, KLPenaltyTRPO, DualTRPO])
def test_two_workers_make_the_update_of_one(cls: type[TRPO], split: tuple[list[int], list[int]]) -> None:
    whole = collect(cls("MlpPolicy", make_vec_env("CartPole-v1", 4, seed=0), **SHARED))
    parts = [part_of(whole, envs) for envs in split]
    threads = Threads(2)
    for rank, part in enumerate(parts):
        part.workers = threads.worker(rank)
    np.random.seed(0)  # noqa: NPY002 (of the mini-batches)
    whole.train()
    np.random.seed(0)  # noqa: NPY002
    assert run_together([part.train for part in parts]) == [None, None]
    after = [flatten(list(model.policy.parameters())) for model in (*parts, whole)]
    assert th.equal(after[0], after[1])
    th.testing.assert_close(after[0], after[2], rtol=1e-4, atol=1e-6)
    reports = [model.last_step for model in (*parts, whole)]
    assert reports[0] == reports[1]
    assert reports[0] is not None
    assert reports[2] is not None
    assert reports[0].outcome is reports[2].outcome is Outcome.ACCEPTED
    assert reports[0].kl == pytest.approx(reports[2].kl, rel=1e-3)


def test_workers_start_from_the_policy_of_the_first() -> None:
    models = [TRPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8) for _ in range(2)]
    first = flatten(list(models[0].policy.parameters()))
    threads = Threads(2)
    for rank, model in enumerate(models):
        model.workers = threads.worker(rank)
    assert run_together([partial(model._setup_learn, 8) for model in models]) == [None, None]
    assert all(th.equal(flatten(list(model.policy.parameters())), first) for model in models)


def test_workers_refuse_a_rollout_together(whole: TRPO) -> None:
    parts = [part_of(whole, envs) for envs in ([0, 1], [2, 3])]
    threads = Threads(2)
    for rank, part in enumerate(parts):
        part.workers = threads.worker(rank)
    parts[1].rollout_buffer.returns[3, 1] = 1e30
    before = flatten(list(whole.policy.parameters()))
    failures = run_together([part.train for part in parts])
    assert "rank 1 has refused its part of the rollout: The returns" in str(failures[0])
    assert "returns of the rollout reach 1e+30" in str(failures[1])
    assert all(th.equal(flatten(list(part.policy.parameters())), before) for part in parts)


def test_workers_see_the_same_trial_where_one_stops_early() -> None:
    policy = make_policy()
    batch = make_batch(policy, 12)
    policies = [policy, deepcopy(policy)]  # a policy has one distribution object, which threads must not share
    halves, threads = [batch.take(slice(0, 6)), batch.take(slice(6, 12))], Threads(2)
    surrogates: dict[int, Surrogate] = {}
    trials: dict[int, Trial] = {}

    def start(rank: int) -> None:
        network = AutogradActor(PolicyInterface(policies[rank]))
        surrogates[rank] = Surrogate(network, halves[rank], 0.1, 2, None, threads.worker(rank))

    assert run_together([partial(start, 0), partial(start, 1)]) == [None, None]
    alone = [Surrogate(actor_of(policy), half, 0.1, 6) for half in halves]
    whole = Surrogate(actor_of(policy), batch, 0.1, 12)
    perturb(policy.parameters(), 0.5)
    policies[1].load_state_dict(policy.state_dict())
    sums = sorted(6 * surrogate.evaluate().kl for surrogate in alone)
    bounds = {"both go on": whole.evaluate().kl, "one stops": 0.5 * (sums[0] + sums[1]) / 12 / 1.01, "both stop": 1e-9}
    for case, max_kl in bounds.items():

        def evaluate(rank: int, max_kl: float = max_kl) -> None:
            trials[rank] = surrogates[rank].evaluate(max_kl)

        assert run_together([partial(evaluate, 0), partial(evaluate, 1)]) == [None, None]
        assert repr(trials[0]) == repr(trials[1])
        assert trials[0].complete is (case == "both go on")
        if trials[0].complete:
            expected = whole.evaluate()
            assert trials[0].surrogate == pytest.approx(expected.surrogate)
            assert trials[0].kl == pytest.approx(expected.kl)
        else:
            assert trials[0].kl > max_kl


def test_alone_returns_everything_unchanged() -> None:
    alone, tensor = Alone(), th.arange(3.0)
    assert alone.sum(tensor) is tensor
    assert (alone.total(2.5), alone.any(True), alone.any(False)) == (2.5, True, False)
    alone.broadcast([tensor])
    assert tensor.tolist() == [0.0, 1.0, 2.0]


def calls_a_policy(path: Path) -> bool:
    """Whether a file calls a policy, or one of the methods and modules with which a policy computes."""
    asks = {"forward", "get_distribution", "predict_values", "evaluate_actions", "extract_features", "reset_noise"}
    asks |= {"obs_to_tensor", "value_net", "action_net", "forward_actor", "forward_critic"}
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    calls = [call for call in calls if "interface." not in call and not call.startswith("super().")]
    return any(call.split(".")[-1] in asks or call in ("policy", "self.policy", "self._policy") for call in calls)


def test_a_policy_is_called_through_its_interface() -> None:
    root = Path(sb3_trpo.__file__).parent
    callers = {str(path.relative_to(root)) for path in root.rglob("*.py") if calls_a_policy(path)}
    # and where a policy of this package computes itself, and where a file is compared with what users call
    assert callers == {
        "policies/interface.py",
        "policies/recurrent_interface.py",
        "policies/recurrent.py",
        "policies/beta.py",
        "export/reference.py",
        "export/stepping.py",
    }


def test_the_policy_class_of_the_masked_variant_is_sb3s() -> None:
    assert type(MaskedTRPO("MlpPolicy", DummyVecEnv([MaskedEnv]), n_steps=8, batch_size=8).policy) is ActorCriticPolicy
