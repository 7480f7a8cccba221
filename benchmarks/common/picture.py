"""Draw pictures without a screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def picture(path: Path, dpi: int, **settings: Any) -> Iterator[tuple[Any, Any]]:
    """
    Open a figure, and write it once it is drawn.

    :param path: the file to write
    :param dpi: dots per inch
    :param settings: of matplotlib's ``subplots``
    :return: the figure and its axes
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(layout="constrained", **settings)
    try:
        yield figure, axes
        figure.savefig(path, dpi=dpi)
    finally:
        plt.close(figure)
