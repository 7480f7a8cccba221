"""Policies with memory: an LSTM or a GRU between features extractor and networks, as in sb3-contrib's RecurrentPPO."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from torch import nn

from sb3_trpo.checks import BOOLEAN, check, check_integers, described
from sb3_trpo.policies.loading import SafelyLoaded
from sb3_trpo.policies.sequences import Memory, RecurrentStates, n_memory_parts, run_sequences

_RNN_TYPES: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU}
_FIXED = ("input_size", "hidden_size", "num_layers", "batch_first", "bidirectional", "proj_size")
"""Arguments of torch's recurrent layers that the policy sets, or that it cannot use."""


class ContradictoryMemoryError(ValueError, AssertionError):
    """Refuses arguments of a recurrent policy. It is an ``AssertionError`` too, as which sb3-contrib refuses them."""


class MlpLstmPolicy(SafelyLoaded):
    """
    An actor-critic policy with memory.

    Arguments, layers and their names are those of sb3-contrib's ``RecurrentActorCriticPolicy``, so weights can be exchanged
    with it. New here: GRUs, and ``save`` and ``load`` of the policy keep the sizes of the recurrent layers.

    The features go through a recurrent layer, then through the layers of ``net_arch``. A shared recurrent layer belongs to the
    actor: the critic reads it, and does not train it.

    :param args: arguments of SB3's policy
    :param lstm_hidden_size: units of each recurrent layer
    :param n_lstm_layers: number of recurrent layers, one after another
    :param shared_lstm: whether the critic reads the actor's recurrent layer
    :param enable_critic_lstm: whether the critic has its own; without either, it has a linear layer, and no memory
    :param lstm_kwargs: further arguments of ``torch.nn.LSTM`` or ``torch.nn.GRU``
    :param rnn_type: "lstm" or "gru"
    :param kwargs: keyword arguments of SB3's policy
    :raises ValueError: if the arguments contradict each other, or one is out of range
    """

    def __init__(
        self,
        *args: Any,
        lstm_hidden_size: int = 256,
        n_lstm_layers: int = 1,
        shared_lstm: bool = False,
        enable_critic_lstm: bool = True,
        lstm_kwargs: dict[str, Any] | None = None,
        rnn_type: str = "lstm",
        **kwargs: Any,
    ) -> None:
        check_integers(1, lstm_hidden_size=lstm_hidden_size, n_lstm_layers=n_lstm_layers)
        check("shared_lstm", shared_lstm, BOOLEAN)
        check("enable_critic_lstm", enable_critic_lstm, BOOLEAN)
        _check_recurrence(rnn_type, lstm_kwargs)
        self.lstm_output_dim = lstm_hidden_size
        super().__init__(*args, **kwargs)
        if shared_lstm and enable_critic_lstm:
            raise ContradictoryMemoryError(
                "`shared_lstm=True` needs `enable_critic_lstm=False`: the critic reads the actor's LSTM"
            )
        if shared_lstm and not self.share_features_extractor:
            raise ContradictoryMemoryError(
                "`shared_lstm=True` needs `share_features_extractor=True`: the LSTM reads one extractor"
            )
        self.lstm_hidden_size = lstm_hidden_size
        self.n_lstm_layers = n_lstm_layers
        self.shared_lstm = shared_lstm
        self.enable_critic_lstm = enable_critic_lstm
        self.lstm_kwargs = lstm_kwargs or {}
        self.rnn_type = rnn_type
        self.lstm_hidden_state_shape = (n_lstm_layers, 1, lstm_hidden_size)
        self.lstm_actor = self._make_rnn()
        self.critic = None if shared_lstm or enable_critic_lstm else nn.Linear(int(self.features_dim), lstm_hidden_size)
        self.lstm_critic = self._make_rnn() if enable_critic_lstm else None
        schedule = args[2] if len(args) > 2 else kwargs["lr_schedule"]
        self.optimizer = self.optimizer_class(self.parameters(), lr=schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _make_rnn(self) -> nn.RNNBase:
        make: Any = _RNN_TYPES[self.rnn_type]
        n_inputs = int(self.features_dim)  # SB3 counts those of a MultiDiscrete with NumPy, which torch refuses
        rnn: nn.RNNBase = make(n_inputs, self.lstm_hidden_size, num_layers=self.n_lstm_layers, **self.lstm_kwargs)
        return rnn

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = MlpExtractor(
            self.lstm_output_dim, net_arch=self.net_arch, activation_fn=self.activation_fn, device=self.device
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        names = ("lstm_hidden_size", "n_lstm_layers", "shared_lstm", "enable_critic_lstm", "lstm_kwargs", "rnn_type")
        own = {name: getattr(self, name) for name in (*names, "share_features_extractor")}
        return {**super()._get_constructor_parameters(), **own}

    def forward(  # type: ignore[override]
        self,
        obs: Any,
        lstm_states: Any,
        episode_starts: th.Tensor,
        deterministic: bool = False,
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor, RecurrentStates]:
        """
        Choose actions, and compute their values.

        :param obs: observations of n sequences, shape (n * T, ...), sequence by sequence; T is 1 while acting
        :param lstm_states: states before the first step: ``pi`` of the actor and ``vf`` of the critic
        :param episode_starts: whether an episode begins, 0 or 1, shape (n * T,)
        :param deterministic: whether to take the most likely action
        :return: actions, values of shape (n * T, 1), log-probabilities of shape (n * T,), and the states after the last step
        """
        pi_features, vf_features = self._both_features(obs)
        latent_pi, state_pi = self._process_sequence(pi_features, lstm_states.pi, episode_starts, self.lstm_actor)
        latent_vf, state_vf = self._critic_latent(vf_features, lstm_states, episode_starts, latent_pi, state_pi)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent_pi))
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        values = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        actions = actions.reshape((-1, *(self.action_space.shape or ())))
        return actions, values, log_prob, RecurrentStates(state_pi, state_vf)

    def get_distribution(  # type: ignore[override]
        self, obs: Any, lstm_states: tuple[th.Tensor, ...], episode_starts: th.Tensor
    ) -> tuple[Distribution, tuple[th.Tensor, ...]]:
        """
        Compute the action distribution.

        :param obs: observations, as in :meth:`forward`
        :param lstm_states: the actor's state
        :param episode_starts: as in :meth:`forward`
        :return: the distribution, and the actor's state after the last step
        """
        features = super(ActorCriticPolicy, self).extract_features(obs, self.pi_features_extractor)
        latent_pi, state = self._process_sequence(features, lstm_states, episode_starts, self.lstm_actor)
        return self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent_pi)), state

    def predict_values(  # type: ignore[override]
        self, obs: Any, lstm_states: tuple[th.Tensor, ...], episode_starts: th.Tensor
    ) -> th.Tensor:
        """
        Compute the values.

        :param obs: observations, as in :meth:`forward`
        :param lstm_states: the critic's state; that of the actor if they share it
        :param episode_starts: as in :meth:`forward`
        :return: shape (n * T, 1)
        """
        features = super(ActorCriticPolicy, self).extract_features(obs, self.vf_features_extractor)
        if self.critic is not None:
            latent_vf = self.critic(features)
        else:
            rnn = self.lstm_actor if self.lstm_critic is None else self.lstm_critic
            latent_vf, _ = self._process_sequence(features, lstm_states, episode_starts, rnn)
            latent_vf = latent_vf.detach() if self.shared_lstm else latent_vf
        values: th.Tensor = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        return values

    def evaluate_actions(  # type: ignore[override]
        self, obs: Any, actions: th.Tensor, lstm_states: Any, episode_starts: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """
        Evaluate given actions.

        :param obs: observations, as in :meth:`forward`
        :param actions: actions taken there
        :param lstm_states: as in :meth:`forward`
        :param episode_starts: as in :meth:`forward`
        :return: values of shape (n * T, 1), log-probabilities and entropy of shape (n * T,)
        """
        pi_features, vf_features = self._both_features(obs)
        latent_pi, state_pi = self._process_sequence(pi_features, lstm_states.pi, episode_starts, self.lstm_actor)
        latent_vf, _ = self._critic_latent(vf_features, lstm_states, episode_starts, latent_pi, state_pi)
        distribution = self._get_action_dist_from_latent(self.mlp_extractor.forward_actor(latent_pi))
        values = self.value_net(self.mlp_extractor.forward_critic(latent_vf))
        return values, distribution.log_prob(actions), distribution.entropy()

    def _both_features(self, obs: Any) -> tuple[th.Tensor, th.Tensor]:
        features = self.extract_features(obs)
        return features if isinstance(features, tuple) else (features, features)

    def _critic_latent(
        self,
        features: th.Tensor,
        states: Any,
        starts: th.Tensor,
        latent_pi: th.Tensor,
        state_pi: tuple[th.Tensor, ...],
    ) -> tuple[th.Tensor, tuple[th.Tensor, ...]]:
        """Compute the input of the critic's networks, and the critic's state after the last step."""
        if self.lstm_critic is not None:
            return self._process_sequence(features, states.vf, starts, self.lstm_critic)
        if self.shared_lstm:
            return latent_pi.detach(), tuple(part.detach() for part in state_pi)
        assert self.critic is not None
        return self.critic(features), state_pi

    @staticmethod
    def _process_sequence(
        features: th.Tensor, states: tuple[th.Tensor, ...], episode_starts: th.Tensor, rnn: nn.RNNBase
    ) -> tuple[th.Tensor, tuple[th.Tensor, ...]]:
        """Run a recurrent layer over n sequences, whose state begins anew with every episode."""
        n = states[0].shape[1]
        starts = episode_starts.reshape(n, -1) != 0
        memory = tuple(part.transpose(0, 1) * ~starts[:, 0].view(-1, 1, 1) for part in states)
        if not starts[:, 1:].any():
            lengths = th.full((n,), starts.shape[1])
            outputs, after = run_sequences(rnn, features, lengths, memory)
            return outputs, tuple(part.transpose(0, 1) for part in after)
        begins = starts.clone()
        begins[:, 0] = True
        first = begins.flatten().nonzero().flatten().cpu()
        lengths = th.diff(first, append=first.new_tensor([starts.numel()]))
        row, step = first // starts.shape[1], first % starts.shape[1]
        of_rows: Memory = tuple(part[row] * (step == 0).to(part.device).view(-1, 1, 1) for part in memory)
        outputs, after = run_sequences(rnn, features, lengths, of_rows)
        last = begins.sum(dim=1).cumsum(0) - 1
        return outputs, tuple(part[last].transpose(0, 1) for part in after)

    def _predict(  # type: ignore[override]
        self,
        observation: Any,
        lstm_states: tuple[th.Tensor, ...],
        episode_starts: th.Tensor,
        deterministic: bool = False,
    ) -> tuple[th.Tensor, tuple[th.Tensor, ...]]:
        distribution, state = self.get_distribution(observation, lstm_states, episode_starts)
        return distribution.get_actions(deterministic=deterministic), state

    def predict(
        self,
        observation: Any,
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Choose the actions for some observations.

        :param observation: one observation, or n of them
        :param state: the state that the last call returned, each array of shape (n_layers, n, hidden); None: the episodes
            begin
        :param episode_start: whether an episode begins, shape (n,) or one for all; then its state is zeros; None: none does
        :param deterministic: whether to take the most likely action
        :return: the actions, and the state for the next call: (h, c) of an LSTM, (h,) of a GRU
        :raises ValueError: if the state or ``episode_start`` has another shape
        """
        self.set_training_mode(False)
        tensors, vectorized = self.obs_to_tensor(observation)
        n = len(next(iter(tensors.values()))) if isinstance(tensors, dict) else len(tensors)
        with th.no_grad():
            states = self._given_state(state, n)
            starts = th.as_tensor(self._given_starts(episode_start, n), device=self.device)
            actions, after = self._predict(tensors, states, starts, deterministic)
        array = actions.cpu().numpy().reshape((-1, *(self.action_space.shape or ())))
        if isinstance(self.action_space, spaces.Box):
            if self.squash_output:
                array = self.unscale_action(array)
            else:
                array = np.clip(array, self.action_space.low, self.action_space.high)
        return array if vectorized else array.squeeze(axis=0), tuple(part.cpu().numpy() for part in after)

    def _given_state(self, state: Any, n: int) -> tuple[th.Tensor, ...]:
        """Read a state that the user gives, or make zeros."""
        n_parts = n_memory_parts(self.lstm_actor)
        shape = (self.n_lstm_layers, n, self.lstm_hidden_size)
        if state is None:
            return tuple(th.zeros(shape, device=self.device) for _ in range(n_parts))
        shapes = [np.shape(part) for part in state] if isinstance(state, (tuple, list)) else described(state)
        if shapes != [shape] * n_parts:
            raise ValueError(
                f"`state` must be None or a tuple of {n_parts} arrays of shape {shape} (layers, observations, units), as "
                f"`predict` returned it; its shapes are {shapes}"
            )
        return tuple(th.as_tensor(part, dtype=th.float32, device=self.device) for part in state)

    @staticmethod
    def _given_starts(episode_start: Any, n: int) -> np.ndarray:
        starts = np.asarray(False if episode_start is None else episode_start, dtype=bool)
        if starts.shape not in ((), (1,), (n,)):
            raise ValueError(f"`episode_start` must have one value for each of the {n} observations, not {starts.shape}")
        return np.array(np.broadcast_to(starts, (n,)))


class CnnLstmPolicy(MlpLstmPolicy, ActorCriticCnnPolicy):
    """
    :class:`MlpLstmPolicy` for images. Its extractor is SB3's ``NatureCNN``, shared by actor and critic as in sb3-contrib, so
    that it belongs to the actor; ``share_features_extractor=False`` separates them.

    :param args: arguments of SB3's policy
    :param kwargs: arguments of :class:`MlpLstmPolicy`
    """


class MultiInputLstmPolicy(MlpLstmPolicy, MultiInputActorCriticPolicy):
    """
    :class:`MlpLstmPolicy` for a Dict of observations, with SB3's ``CombinedExtractor``, shared by actor and critic.

    :param args: arguments of SB3's policy
    :param kwargs: arguments of :class:`MlpLstmPolicy`
    """


_OF_CONTRIB: dict[str, type[MlpLstmPolicy]] = {
    "RecurrentActorCriticPolicy": MlpLstmPolicy,
    "RecurrentActorCriticCnnPolicy": CnnLstmPolicy,
    "RecurrentMultiInputActorCriticPolicy": MultiInputLstmPolicy,
}
"""This package's class for each of sb3-contrib, by name, so that sb3-contrib need not be installed."""


def own_class(policy: Any) -> Any:
    """
    Replace a recurrent policy class of sb3-contrib by this package's, which has the same weights and computes the same.

    :param policy: a class, or anything else
    :return: this package's class; any other is returned as it is
    """
    module, name = getattr(policy, "__module__", ""), getattr(policy, "__name__", "")
    return _OF_CONTRIB.get(name, policy) if module == "sb3_contrib.common.recurrent.policies" else policy


_SEQUENCE_METHODS = ("forward", "get_distribution", "predict_values", "evaluate_actions", "_process_sequence")
"""Methods that the update does not call, because it needs less than they compute."""


def why_not_recurrent(policy_class: Any) -> str | None:
    """
    Tell why :class:`~sb3_trpo.policies.recurrent_interface.RecurrentInterface` cannot call policies of a class.

    :param policy_class: any class, or anything else
    :return: the reason; None if it can: this package's recurrent policies and their subclasses
    """
    if not (isinstance(policy_class, type) and issubclass(policy_class, MlpLstmPolicy)):
        return "is not a subclass of MlpLstmPolicy"
    changed = [name for name in _SEQUENCE_METHODS if getattr(policy_class, name) is not getattr(MlpLstmPolicy, name)]
    if changed:
        return f"overrides `{changed[0]}`, which whole sequences are not computed through"
    return None


def _check_recurrence(rnn_type: Any, lstm_kwargs: Any) -> None:
    """Check the kind of the recurrent layers and their further arguments."""
    if not (isinstance(rnn_type, str) and rnn_type in _RNN_TYPES):
        raise ValueError(f"`rnn_type` must be 'lstm' or 'gru', not {described(rnn_type)}")
    if not (lstm_kwargs is None or isinstance(lstm_kwargs, dict)):
        raise ValueError(f"`lstm_kwargs` must be None or a dict, not {described(lstm_kwargs)}")
    for name in _FIXED:
        if name in (lstm_kwargs or {}):
            raise ValueError(f"`lstm_kwargs` must not have {name!r}: the policy sets it, or cannot use it")
