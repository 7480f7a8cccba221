"""
Train a policy with a network of your own: here, each layer adds to its input.

    python examples/custom_policy.py

TRPO needs to know nothing about it: the Fisher-vector products come from automatic differentiation.
"""

import argparse
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_trpo import TRPO, evaluate_policy


class Residual(nn.Module):
    """
    A layer that adds to its input.

    :param width: number of units
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: th.Tensor) -> th.Tensor:
        """Return the input plus what the layer computes from it, shape (B, width)."""
        return x + th.tanh(self.layer(x))


class TwoNetworks(nn.Module):
    """
    The networks of actor and critic between features and outputs; SB3 asks for these names.

    :param n_features: number of features
    :param width: number of units of a layer
    """

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = width
        self.actor = nn.Sequential(nn.Linear(n_features, width), Residual(width), Residual(width))
        self.critic = nn.Sequential(nn.Linear(n_features, width), Residual(width), Residual(width))

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Return the hidden units of actor and critic, each of shape (B, width)."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        """Return the hidden units of the actor, shape (B, width)."""
        hidden: th.Tensor = self.actor(features)
        return hidden

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        """Return the hidden units of the critic, shape (B, width)."""
        hidden: th.Tensor = self.critic(features)
        return hidden


class ResidualPolicy(ActorCriticPolicy):
    """
    SB3's policy with :class:`TwoNetworks`.

    :param width: number of units of a layer
    """

    def __init__(self, *args: Any, width: int = 32, **kwargs: Any) -> None:
        self.width = width
        super().__init__(*args, **kwargs)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = TwoNetworks(self.features_dim, self.width)  # type: ignore[assignment]


def main() -> None:
    """Train, and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="env steps of the training")
    steps = parser.parse_args().steps

    policy_kwargs = {"width": 32, "ortho_init": False}
    model = TRPO(ResidualPolicy, "CartPole-v1", n_steps=1_024, policy_kwargs=policy_kwargs, seed=0, device="cpu").learn(steps)
    mean, std = evaluate_policy(model, Monitor(gym.make("CartPole-v1")), n_eval_episodes=20)
    print(f"return {mean:.1f} +/- {std:.1f}")


if __name__ == "__main__":
    main()
