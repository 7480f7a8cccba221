"""Pictures of updates, for users: of a whole run from its log, and of one step of a model."""

from sb3_trpo.command_line.plots import plot_step, plot_updates

__all__ = ["plot_step", "plot_updates"]
