"""The allocator's settings: freed blocks are kept for the next step and returned to the system on request."""

import os
import subprocess
import sys

from qmsam_core.allocator import MALLOC

HOLES = """
import numpy as np
from psutil import Process
from qmsam_core.allocator import return_memory
blocks = [np.ones(2**20, np.uint8) for _ in range(300)]
last = np.ones(2**20, np.uint8)  # keeps the heap from shrinking at its end
del blocks
kept = Process().memory_info().rss
return_memory()
print((kept - Process().memory_info().rss) / 2**20)
"""


def test_blocks_are_kept_until_they_are_to_be_returned():
    done = subprocess.run(
        [sys.executable, "-c", HOLES], env=os.environ | MALLOC, capture_output=True, text=True, check=True
    )
    # Python had freed 300 MiB before. All of it was held back until `return_memory`.
    assert float(done.stdout) > 250
