"""Train, measure and report, with one command per script. ``benchmarks.common`` holds the shared parts."""
