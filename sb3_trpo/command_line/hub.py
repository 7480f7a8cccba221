"""The Hugging Face Hub as rl_zoo3 2.9 expects it, with newer releases of its packages."""

from importlib import import_module


def mend_hub() -> None:
    """
    Let the Zoo's ``push_to_hub`` and ``load_from_hub`` work with newer releases of the Hub's packages.

    rl_zoo3 2.9 imports ``generate_metadata`` from the Hub integration, whose release 3.2 has it under a private name and as an
    object; and it expects an ``HTTPError`` where a model has no file of ``VecNormalize``.
    """
    from huggingface_hub.errors import EntryNotFoundError  # here, because only the Hub needs them
    from requests.exceptions import HTTPError

    integration = import_module("huggingface_sb3.push_to_hub")  # the package has a function of this name
    if not hasattr(integration, "generate_metadata"):
        private = integration._generate_metadata
        vars(integration)["generate_metadata"] = lambda *args: private(*args).to_dict()
    package, load = import_module("huggingface_sb3"), import_module("huggingface_sb3.load_from_hub").load_from_hub

    def load_from_hub(repo_id: str, filename: str) -> str:
        try:
            return str(load(repo_id, filename))
        except EntryNotFoundError as error:
            raise HTTPError(str(error)) from error

    vars(package)["load_from_hub"] = load_from_hub
