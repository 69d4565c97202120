"""
--tensorboard: the numbers of log.jsonl and metrics.jsonl for TensorBoard, which draws curves while
a run goes on.

Needs the package tensorboard (pip install -e .[tensorboard]); options.py looks for it. Not part of
the paper.
"""
from pathlib import Path


class Board:
    """The folder `tensorboard` of a run, if it is asked for; without, `add` does nothing.

    out: the run's folder. start: the step that the run goes on from. What an earlier process has
    written of later steps is taken back, for it comes again.
    """

    def __init__(self, asked: bool, out: Path, start: int):
        self.asked = asked
        self.folder = out / "tensorboard"
        self.start = start
        self.writer = None

    def add(self, step: int, scalars: dict[str, float]) -> None:
        """Numbers by name, after so many steps. On rank 0 alone. They are on disk on return."""
        if not self.asked:
            return
        if self.writer is None:
            # Made here and not before: a run that fails at its start leaves no folder behind.
            from torch.utils.tensorboard import SummaryWriter
            self.writer = SummaryWriter(str(self.folder), purge_step=self.start + 1)
        for name, number in scalars.items():
            self.writer.add_scalar(name, number, step)
        self.writer.flush()
