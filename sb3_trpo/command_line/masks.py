"""Passes action masks to a model wherever the Zoo's scripts, which know none, call its ``predict``."""

from typing import Any

from sb3_trpo.algorithms.maskable import MaskableTRPO
from sb3_trpo.envs.masked_vec_env import MaskedVecEnv


class MaskedEvaluation:
    """Remembers the environments that a script steps, and asks them for the masks of every prediction."""

    def __init__(self) -> None:
        self.env: MaskedVecEnv | None = None

    def remember(self, create_test_env: Any) -> Any:
        """
        Remember the environments of ``enjoy`` and ``record_video``.

        :param create_test_env: the Zoo's function that makes them
        :return: the patched function
        """

        def patched(*args: Any, **kwargs: Any) -> MaskedVecEnv:
            self.env = MaskedVecEnv(create_test_env(*args, **kwargs))
            return self.env

        return patched

    def evaluate(self, evaluate_policy: Any) -> Any:
        """
        Remember the environments of an evaluation during a training, as long as it lasts.

        :param evaluate_policy: SB3's function that evaluates
        :return: the patched function
        """

        def patched(model: Any, env: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(model, MaskableTRPO):
                return evaluate_policy(model, env, *args, **kwargs)
            before, self.env = self.env, MaskedVecEnv(env)
            try:
                return evaluate_policy(model, self.env, *args, **kwargs)
            finally:
                self.env = before

        return patched

    def predict(self, predict: Any) -> Any:
        """
        Add the masks of the environments.

        :param predict: the method of the model
        :return: the patched method
        """

        def patched(model: Any, *args: Any, **kwargs: Any) -> Any:
            if self.env is not None and kwargs.get("action_masks") is None:
                kwargs["action_masks"] = self.env.action_masks()
            return predict(model, *args, **kwargs)

        return patched
