"""Time the parts of a training separately."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks.common.patching import replaced
from benchmarks.common.timing import timed

PARTS = {
    "env, with its wrappers": "stable_baselines3.common.vec_env.base_vec_env.VecEnv.step",
    "actor": "sb3_trpo.rollout.numpy_actor.NumpyActor.act",
    "buffer": "sb3_trpo.rollout.recorders.DeferredRecorder.record",
    "values, log-probs and advantages": "sb3_trpo.rollout.recorders.DeferredRecorder.finish",
    "surrogate and its gradient": "sb3_trpo.update.surrogate.Surrogate.__init__",
    "Fisher products": "sb3_trpo.update.fisher.FisherVectorProduct.__call__",
    "line search": "sb3_trpo.step.line_search.backtracking_line_search",
    "critic": "sb3_trpo.algorithms.trpo.TRPO._fit_critic",
}
"""Label in the table -> the function or method that is timed. None may call another one."""


@contextmanager
def split() -> Iterator[dict[str, list[float]]]:
    """
    Time each part of the trainings that run in the context.

    :return: seconds of the calls of each part, filled while the context lasts
    :raises LookupError: if a part is not where :data:`PARTS` says
    :raises RuntimeError: at the end, if a part was never called
    """
    records: dict[str, list[float]] = {label: [] for label in PARTS}
    with ExitStack() as stack:
        for label, name in PARTS.items():
            stack.enter_context(replaced(name, partial(timed, record=records[label])))
        yield records
    idle = [f"{label} ({PARTS[label]})" for label, record in records.items() if not record]
    if idle:
        raise RuntimeError(f"never called, so that their time would count as rest: {', '.join(idle)}; see {__name__}.PARTS")
