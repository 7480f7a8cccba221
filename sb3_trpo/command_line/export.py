"""The command ``sb3-trpo export``: writes a saved model as a file that needs neither this package nor its training."""

import argparse
import pickle
from collections.abc import Sequence
from pathlib import Path

from stable_baselines3.common.vec_env import VecNormalize

from sb3_trpo.algorithms.names import ALGORITHMS
from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.export.further_inputs import takes_masks
from sb3_trpo.export.module import OUTPUTS
from sb3_trpo.export.onnx_model import OPSET
from sb3_trpo.export.preparation import Statistics
from sb3_trpo.reading.rebuild import load_pickle
from sb3_trpo.saving.statistics import statistics_of

_OPTIONS = {
    "`vec_normalize": "; the option is `--statistics FILE` or `--statistics none`",
    "`policy` must be": "; the option for the class of the model is `--algo`",
}
"""What to add to messages that name an argument."""

_SUFFIXES = (".onnx", ".pt2")


def export(program: str, options: Sequence[str]) -> None:
    """
    Run the command.

    :param program: its name, for the help text
    :param options: the command line after the name
    :raises SystemExit: with the help text or an error message
    """
    chosen = _parser(program).parse_intermixed_args(options)
    path = chosen.output or chosen.model.with_suffix(".onnx")
    if path.suffix not in _SUFFIXES:
        raise SystemExit(f"sb3-trpo: OUTPUT must end with {' or '.join(_SUFFIXES)}, not {path.name!r}")
    try:
        model = ALGORITHMS[chosen.algo].load(chosen.model, device="cpu", trusted=chosen.trusted)
        _check_masks(model)
        statistics = _statistics(chosen.statistics, chosen.model, chosen.trusted)
        arguments = {"outputs": chosen.outputs, "image_channels": chosen.image_channels, "vec_normalize": statistics}
        if path.suffix == ".onnx":
            model.export_onnx(path, **arguments, opset=chosen.opset)
        else:
            model.export_torch(path, **arguments)
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        hints = (text for name, text in _OPTIONS.items() if name in str(error))
        raise SystemExit(f"sb3-trpo: {error}{next(hints, '')}") from error
    print(f"{path} ({path.stat().st_size:,} bytes) computes what {chosen.model} predicts")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, description=__doc__, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", type=Path, help="zip file of the model")
    parser.add_argument(
        "output", metavar="OUTPUT", type=Path, nargs="?", help="the file to write: .onnx (default: MODEL with .onnx) or .pt2"
    )
    parser.add_argument("--algo", choices=ALGORITHMS, default="trpo", help="class of the model")
    parser.add_argument(
        "--statistics",
        metavar="FILE",
        help="the file of VecNormalize that the model was trained with; 'none': the observations are not normalised; default: "
        "the file that was saved with the model, if there is one",
    )
    parser.add_argument("--outputs", nargs="+", default=["action"], choices=OUTPUTS, help="what the file computes")
    parser.add_argument(
        "--image-channels", choices=("first", "last"), help="where the environment's images have their channels"
    )
    parser.add_argument("--trusted", action="store_true", help="let the files run the code that they contain")
    parser.add_argument("--opset", type=int, default=OPSET, help="version of the ONNX operators")
    return parser


def _check_masks(model: TRPO) -> None:
    """Refuse a model with masks that was loaded by a class without: its file would take forbidden actions."""
    if "mask_source" in vars(model) and not takes_masks(model):
        raise ValueError("the model takes action masks: pass `--algo maskable_trpo` or `--algo maskable_trpo_lstm`")


def _statistics(file: str | None, model: Path, trusted: bool) -> Statistics:
    """Read the statistics that the user names, or those saved with the model."""
    if file == "none":
        return None
    found = statistics_of(model) if file is None else Path(file)
    if found is None:
        return "auto"
    try:
        statistics = pickle.loads(found.read_bytes()) if trusted else load_pickle(found.read_bytes())
    except OSError:
        raise
    except Exception as error:  # unpickling may raise anything
        raise ValueError(f"{found} holds no VecNormalize: {error}") from error
    if not isinstance(statistics, VecNormalize):
        raise ValueError(f"{found} holds no VecNormalize, but a {type(statistics).__name__}")
    return statistics
