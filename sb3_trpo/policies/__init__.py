"""The policies that the aliases name, and networks for images."""

from sb3_trpo.policies.aliases import (
    CnnPolicy,
    MlpPolicy,
    MultiInputPolicy,
    NormalizedCNN,
    PaperCNN,
    PaperCnnPolicy,
)

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "NormalizedCNN", "PaperCNN", "PaperCnnPolicy"]
