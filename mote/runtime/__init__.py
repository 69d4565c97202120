"""What a real run needs around the paper: ranks, options, checkpoints, logs, guards."""
