"""One thread: the tests run in parallel, and repeatability is promised for a fixed number of threads."""

import torch as th

th.set_num_threads(1)
