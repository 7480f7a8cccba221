"""Share parts between scripts: set-up, runs and their curves, statistics, timers, tables and pictures."""
