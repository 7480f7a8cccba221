"""The policies that the aliases name, and networks for images."""

from sb3_trpo.policies.aliases import CnnPolicy, MlpPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "NormalizedCNN", "PaperCNN", "PaperCnnPolicy"]

for _public in (CnnPolicy, MultiInputPolicy, NormalizedCNN, PaperCNN, PaperCnnPolicy):
    _public.__module__ = __name__  # saved models name their classes by module: by this one, wherever the file is
