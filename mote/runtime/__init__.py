"""What a real run needs around the paper: ranks, checkpoints, a run's folder and log, faults. Not part of the paper."""
