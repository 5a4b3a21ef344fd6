"""Networks, graph learners and their training.

Torch and numpy only: nothing here knows files, `deepscaler.settings` or clusters.
"""

import os

# Torch's OpenMP threads otherwise spin while they wait for one another. Where other work has the cores, they
# take the time of the very thread that they wait for: a training beside two busy processes on two cores was
# 30 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
