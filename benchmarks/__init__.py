"""Scripts that train, measure and report, one command each; the parts that they share are in ``benchmarks.common``."""
