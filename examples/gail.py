"""
Imitate an expert without rewards: GAIL of the package ``imitation``, with TRPO as its learner, as in the paper on GAIL.

``imitation`` 1.0.1 asks for Stable-Baselines3 2.2, but runs with newer ones. Install it without its requirements, and those
that it needs here:

    pip install --no-deps imitation==1.0.1 seals==0.2.1
    pip install datasets sacred scikit-learn
    python examples/gail.py
"""

import argparse

import gymnasium as gym
import numpy as np
from imitation.algorithms.adversarial.gail import GAIL
from imitation.data import rollout
from imitation.data.wrappers import RolloutInfoWrapper
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util.networks import RunningNorm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_trpo import TRPO, evaluate_policy


def expert(observations: np.ndarray, state: None, dones: np.ndarray | None) -> tuple[np.ndarray, None]:
    """Balance the pole: push the cart to where the pole falls."""
    return (observations[:, 2] + 0.5 * observations[:, 3] > 0.0).astype(np.int64), None


def main() -> None:
    """Record the expert, imitate it, and print the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50_000, help="env steps of the training")
    steps = parser.parse_args().steps

    env = DummyVecEnv([lambda: RolloutInfoWrapper(gym.make("CartPole-v1")) for _ in range(2)])
    env.seed(0)
    until = rollout.make_sample_until(min_episodes=10)
    demonstrations = rollout.rollout(expert, env, until, rng=np.random.default_rng(0))
    learner = TRPO("MlpPolicy", env, n_steps=512, batch_size=128, seed=0, device="cpu")
    gail = GAIL(
        demonstrations=demonstrations,
        demo_batch_size=1_024,
        gen_replay_buffer_capacity=1_024,
        n_disc_updates_per_round=8,
        venv=env,
        gen_algo=learner,
        reward_net=BasicRewardNet(env.observation_space, env.action_space, normalize_input_layer=RunningNorm),
        allow_variable_horizon=True,  # CartPole's episodes tell by their length how good they are
    )
    gail.train(steps)
    mean, std = evaluate_policy(learner, Monitor(gym.make("CartPole-v1")), n_eval_episodes=20)
    print(f"return {mean:.1f} +/- {std:.1f}")


if __name__ == "__main__":
    main()
