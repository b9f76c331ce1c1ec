"""For all tests."""

import os

# One thread: the tensors of the tests are tiny, and a process that is forked while OpenMP has threads hangs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
