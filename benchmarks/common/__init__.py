"""Parts that several scripts share: set-up, runs and their curves, statistics, timers, tables and pictures."""
