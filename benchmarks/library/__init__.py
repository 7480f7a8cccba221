"""What the scripts of this folder's parent share: set-up, runs and their curves, statistics, timers, tables and pictures."""
