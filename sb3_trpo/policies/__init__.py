"""The policies behind the aliases, and networks for images."""

from sb3_trpo.policies.aliases import CnnPolicy, MlpPolicy, MultiInputPolicy, PaperCnnPolicy
from sb3_trpo.policies.image_networks import NormalizedCNN, PaperCNN
from sb3_trpo.policies.maskable import MaskableCnnPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy

__all__ = [
    "CnnPolicy",
    "MaskableCnnPolicy",
    "MaskableMlpPolicy",
    "MaskableMultiInputPolicy",
    "MlpPolicy",
    "MultiInputPolicy",
    "NormalizedCNN",
    "PaperCNN",
    "PaperCnnPolicy",
]

_MASKABLE = (MaskableCnnPolicy, MaskableMlpPolicy, MaskableMultiInputPolicy)
for _public in (CnnPolicy, MultiInputPolicy, NormalizedCNN, PaperCNN, PaperCnnPolicy, *_MASKABLE):
    _public.__module__ = __name__  # saved models refer to classes by module: to this one, wherever the file is
