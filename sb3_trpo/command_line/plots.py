"""Pictures of updates: a whole run from its log, and one step of a model."""

import argparse
import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback

from sb3_trpo.algorithms.trpo import TRPO
from sb3_trpo.checks import check, integer
from sb3_trpo.step.problem import Problem
from sb3_trpo.step.report import StepReport, UnboundedReport
from sb3_trpo.step.step_curve import StepCurve, trace_step

_NEEDED = "train/kl_divergence_loss"
"""A column that every log of an update has."""

_FARTHEST = 1.5
"""Largest fraction of the full step in the picture of one step."""


class Panel(NamedTuple):
    """
    One panel of the picture of a run.

    :param title: its title
    :param lines: column of the log -> label
    :param scale: scale of the vertical axis
    """

    title: str
    lines: dict[str, str]
    scale: str = "linear"


PANELS = (
    Panel("KL of the update, nats", {"train/kl_divergence_loss": "KL", "train/target_kl": "bound"}),
    Panel("gain of the surrogate", {"train/surrogate_gain": "gain", "promised": "linear model"}),
    Panel("accepted fraction of the full step", {"train/step_fraction": "fraction"}),
    Panel("relative residual of the solver", {"train/cg_residual": "residual"}, "log"),
    Panel("entropy, nats", {"train/entropy": "entropy"}),
    Panel("explained variance of the values", {"train/explained_variance": "explained variance"}),
)


def plot_updates(log: Path | str, path: Path | str) -> None:
    """
    Draw every update of a run from SB3's ``progress.csv``: KL against its bound, gain against what the linear model promised
    for the accepted fraction, step fraction, residual of the solver, entropy and explained variance. Updates that did not move
    the policy are marked in red.

    :param log: the file ``progress.csv``, or its folder
    :param path: the picture to write, such as ``updates.png``
    :raises ValueError: if there is no such file, or it has no updates of this package
    """
    updates = _read_log(Path(log))
    numbers, moved = (updates.columns[name] for name in ("train/n_updates", "train/is_line_search_success"))
    refused = [number for number, success in zip(numbers, moved, strict=True) if success == 0.0]
    with _figure(path, 3, 2) as (figure, axes):
        for axis, panel in zip(axes.flat, PANELS, strict=True):
            for column, label in panel.lines.items():
                axis.plot(
                    numbers, updates.columns[column], label=label, linewidth=1, linestyle="-" if "train" in column else "--"
                )
            for number in refused:
                axis.axvline(number, color="red", alpha=0.25, linewidth=1)
            axis.set(title=panel.title, xlabel="update")
            if "train/cg_residual" in panel.lines:
                axis.set(title=f"{panel.title}\n{_counted(updates.solver)}")
            if panel.scale == "log" and any(value > 0.0 for value in updates.columns[next(iter(panel.lines))]):
                axis.set_yscale("log")
            axis.grid(alpha=0.3)
            if len(panel.lines) > 1:
                axis.legend()
        head = f"{len(numbers)} updates" + (f", {len(refused)} of them without a step (red)" if refused else "")
        figure.suptitle("\n".join([head, *([_counted(updates.outcomes)] if updates.outcomes else [])]))


class _Updates(NamedTuple):
    """
    The updates of a log.

    :param columns: numbers of every update by the column of the log
    :param outcomes: why updates did not move the policy
    :param solver: why the solver stopped in every update
    """

    columns: dict[str, list[float]]
    outcomes: list[str]
    solver: list[str]


def _counted(texts: Sequence[str]) -> str:
    """List how often each text occurs."""
    return ", ".join(f"{text}: {times}" for text, times in Counter(texts).most_common())


def _read_log(log: Path) -> _Updates:
    """Read the columns of the panels, without the rows that log no update."""
    file = log / "progress.csv" if log.is_dir() else log
    if not file.is_file():
        raise ValueError(
            f"there is no {file}, which `sb3-trpo train` does not write: train in Python with "
            "`model.set_logger(configure(FOLDER, ['stdout', 'csv']))`, with `configure` of stable_baselines3.common.logger"
        )
    with file.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get(_NEEDED)]
    columns = ["train/n_updates", "train/is_line_search_success", "train/expected_gain"]
    columns += [column for panel in PANELS for column in panel.lines if column != "promised"]
    missing = [column for column in columns if column not in (rows[0] if rows else {})]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r} in any row: it logs no update of this package's TRPO")
    numbers = {column: [float(row[column] or math.nan) for row in rows] for column in columns}
    pairs = zip(numbers["train/expected_gain"], numbers["train/step_fraction"], strict=True)
    numbers["promised"] = [gain * fraction for gain, fraction in pairs]
    outcomes, solver = ([text for row in rows if (text := row.get(f"train/{name}"))] for name in ("outcome", "cg_outcome"))
    return _Updates(numbers, outcomes, solver)


def plot_step(model: TRPO, path: Path | str, n_points: int = 61) -> StepCurve:
    """
    Collect a rollout, let the model make this one update, and draw surrogate and KL along the step, with the accepted point.

    The step is the natural gradient, scaled to the bound; the picture also shows the linear model of the surrogate and the
    quadratic model of the KL. A rule that takes several ascent steps leaves this line, so that no point is marked for it.

    :param model: a model with its environment; it continues from its present state
    :param path: the picture to write
    :param n_points: number of points of a curve, from 0 to 1.5 times the full step
    :return: the curve
    :raises ValueError: if the model takes no step along the natural gradient in this rollout, saying why
    """
    check("n_points", n_points, integer(2))
    fractions = [_FARTHEST * i / (n_points - 1) for i in range(n_points)]
    traced: list[StepCurve | StepReport] = []
    rule = model.step_rule

    def tracing_rule(problem: Problem, settings: Any) -> StepReport:
        traced.append(trace_step(problem, settings, fractions))
        return rule(problem, settings)

    model.step_rule = tracing_rule  # type: ignore[misc]
    try:
        size = model.n_steps * model.n_envs
        # a budget of several rollouts, so that schedules and the first rollout's statistics do not end here
        model.learn(6 * size, _OneUpdate(), None, reset_num_timesteps=False)
    finally:
        del model.step_rule
    report = model.last_step
    if not traced or isinstance(traced[0], StepReport) or report is None:
        why = report.outcome.value if report else "the training has stopped"
        raise ValueError(f"the model took no step along the natural gradient in this rollout ({why})")
    _draw_step(traced[0], report, path)
    return traced[0]


class _OneUpdate(BaseCallback):
    """Stops a training after its first update."""

    def _on_training_start(self) -> None:
        self._rollouts = 0

    def _on_rollout_end(self) -> None:
        self._rollouts += 1

    def _on_step(self) -> bool:
        return self._rollouts == 0


def _draw_step(curve: StepCurve, report: StepReport, path: Path | str) -> None:
    """Draw the curve, its models and the accepted point."""
    with _figure(path, 1, 2) as (figure, axes):
        linear = [fraction * curve.expected_gain for fraction in curve.fractions]
        quadratic = [fraction**2 * curve.max_kl for fraction in curve.fractions]
        accepted = report.step_fraction if report.accepted and not _leaves_the_line(report) else None
        for axis, values, model, label, title, y in (
            (axes[0], curve.gains, linear, "linear model", "gain of the surrogate", report.surrogate_gain),
            (axes[1], curve.kls, quadratic, "quadratic model", "KL(old‖new), nats", report.kl),
        ):
            axis.plot(curve.fractions, values, label="whole rollout")
            axis.plot(curve.fractions, model, "--", label=label)
            if accepted is not None:
                axis.plot(accepted, y, "o", color="black", label="accepted")
            axis.set(title=title, xlabel="fraction of the full step")
            axis.grid(alpha=0.3)
        axes[1].axhline(curve.max_kl, color="red", linewidth=1, linestyle=":", label="bound")
        for axis in axes:
            axis.legend()
        figure.suptitle(f"one update: {report.outcome.value}")


def _leaves_the_line(report: StepReport) -> bool:
    """Tell whether the rule has other steps than along the natural gradient, scaled to the bound."""
    return isinstance(report, UnboundedReport) and (report.kl_coef is not None or not report.line_search_steps)


@contextmanager
def _figure(path: Path | str, n_rows: int, n_columns: int) -> Iterator[tuple[Any, Any]]:
    """Open a figure without a screen, and write it once it is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * n_columns, 3.4 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure, figure.subplots(n_rows, n_columns)
    figure.savefig(path, dpi=110)


def draw(program: str, arguments: Sequence[str]) -> None:
    """
    Run ``sb3-trpo plot_updates``.

    :param program: its name, for the help text
    :param arguments: the command line after the name
    :raises SystemExit: with the help text or an error message
    """
    try:
        import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise SystemExit(f"sb3-trpo: {error}. The pictures need matplotlib: pip install 'sb3-trpo[extra]'") from error
    parser = argparse.ArgumentParser(program, description="Draw every update of a run from its progress.csv.")
    parser.add_argument("--folder", type=Path, required=True, help="folder of progress.csv")
    parser.add_argument("-o", "--output", type=Path, help="picture to write; by default updates.png in the folder")
    options = parser.parse_args(arguments)
    output = options.output or options.folder / "updates.png"
    try:
        plot_updates(options.folder, output)
    except (ValueError, OSError) as error:
        raise SystemExit(f"sb3-trpo: {error}") from error
    print(output)
