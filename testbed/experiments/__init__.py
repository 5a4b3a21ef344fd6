"""Experiments on the emulated cluster: runs, the demo, the label study, the benchmark."""
