"""One thread a process, as in the program's own workers: several test processes with several threads each wait for one another.

It must be said before numpy or torch are imported. On two busy cores a 512 x 512 eigenproblem took twenty times the processor time.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1")
