"""One thread of linear algebra per worker: the workers share the cores, and their threads would wait for one another.

Set before NumPy is imported; a number of your own is kept.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
