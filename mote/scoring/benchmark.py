"""
The datasets that a training run is tested on: opened once, scored, printed and recorded many times.

Not part of the paper.
"""
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from ..clip_backbone import Pixels
from ..datasets.dataset import Dataset
from ..model import MoTE
from ..runtime.best import name_best
from ..runtime.board import Board
from ..runtime.checkpoints import pixels_of
from ..runtime.precision import dtype_for
from ..runtime.ranks import Ranks, from_rank_0
from ..runtime.run_folder import evaluated, record
from ..temporal_experts import TemporalTransformer
from .evaluate import describe_failures, evaluate
from .protocols import Protocol, protocol_of


@dataclass(frozen=True)
class Conditions:
    """How a run tests: with one view, and in fp32 unless asked for another precision.

    These are eval.py's defaults, so that the numbers may be compared.
    """
    templates: list[str]
    frames: int                          # T
    resize: int                          # the short side, in pixels; squashed: both sides
    pixels: Pixels                       # of the tower: how its frames are made
    workers: int                         # decoding processes of a rank
    precision: str = "fp32"              # of the tests between epochs; auto: the device's best
    final_precision: str = "fp32"        # of untrained CLIP and of the last test
    keep_best: bool = False              # see runtime/best.py


class Benchmark:
    """{name: Dataset} and {name: class embeddings (N, D)}, the first of the run's own dataset.

    out: the run's folder. board: where scores are shown, beside the log. All ranks call its
    methods.

    seconds, seconds_in_all: what the newest evaluation of each dataset took, and all of them.
    """

    def __init__(self, datasets: dict[str, Dataset], embeddings: dict[str, Tensor],
                 conditions: Conditions, ranks: Ranks, out: Path, board: Board):
        self.datasets = datasets
        self.embeddings = embeddings
        self.conditions = conditions
        self.ranks = ranks
        self.out = out
        self.board = board
        self.precision = dtype_for(ranks.device, conditions.precision)           # between epochs
        self.seconds: dict[str, float] = {}
        self.seconds_in_all = 0.0
        self.said: dict[str, str] = {}                           # of each dataset, as `say_once`
        self.protocols: dict[str, Protocol] = {}
        self.results: dict[str, dict] = {}                       # the newest of each dataset

    def protocol(self, name: str, precision: str) -> Protocol:
        """Of one of the datasets. Its videos are looked for on disk once, not in every test."""
        if name not in self.protocols:
            how = self.conditions
            self.protocols[name] = protocol_of(self.datasets[name], how.templates,
                                               frames=how.frames, resize=how.resize,
                                               **asdict(how.pixels))
        return replace(self.protocols[name], precision=precision)

    def score(self, model: MoTE, name: str, precision: str) -> dict:
        """`evaluate` of a model on one of the datasets. Its protocol is printed once, and so are
        the videos that failed.

        Videos that kill a worker are shared with training, in the run's skipped.txt.
        """
        data = self.datasets[name]
        protocol = self.protocol(name, precision)
        self.say_once(f"{name}'s protocol", str(protocol))
        began = time.perf_counter()
        result = evaluate(model, data.videos, self.embeddings[name], self.ranks, protocol,
                          workers=self.conditions.workers, skipped=self.out / "skipped.txt")
        self.seconds[name] = time.perf_counter() - began
        self.seconds_in_all += self.seconds[name]
        if result["failed"]:
            failures = describe_failures(result["failed"], result["videos"])
            self.say_once(f"{name}'s failures", f"{name}: {failures}")
        return result

    def say_once(self, what: str, text: str) -> None:
        """Print, unless it was the last thing said of this: protocols seldom change."""
        if self.said.get(what) != text:
            self.ranks.say(text)
        self.said[what] = text

    def test(self, model: MoTE, step: int, epoch: int, losses: dict[str, float],
             last: bool = False) -> None:
        """Score, print and record: the first dataset, which the run trains on; at last, all.

        What is recorded of this step already is left out: after a kill between a checkpoint and
        its evaluation, there is something left to do. model: with its experts merged (Eq. 6).
        losses: means of the training losses, kept beside the scores.
        """
        names = list(self.datasets) if last else list(self.datasets)[:1]
        precision = self.conditions.final_precision if last else self.precision
        # Of rank 0, which writes the file: if ranks disagreed, some would wait in `evaluate`.
        done = from_rank_0(evaluated(self.out))
        for name in names:
            if (step, name) in done:
                continue
            result = {"step": step, "epoch": epoch, "data": name, **losses,
                      **self.score(model, name, precision)}
            self.ranks.say(evaluation_line(result))
            # Before it is recorded: after a kill in between, the test is made again.
            if self.conditions.keep_best and name == names[0] and precision == self.precision:
                name_best(self.ranks, self.out, result)
            record(self.ranks, self.out, result)
            if self.ranks.first:
                self.board.add(step, scalars(result))
            self.results[name] = result

    def final(self, model: MoTE) -> dict[str, dict]:
        """The newest result of every dataset; scored anew where this process has none.

        A run that is resumed after its last evaluation has none: `test` has left them out.
        """
        results = {}
        for name in self.datasets:
            results[name] = (self.results.get(name)
                             or self.score(model, name, self.conditions.final_precision))
        return results

    def tested_alike(self, resumed: dict) -> bool:
        """Whether a checkpoint's run tested untrained CLIP as this one does."""
        before = resumed["config"].get("final_precision", "fp32")            # older ones: fp32
        return (resumed["frames"] == self.conditions.frames
                and before == self.conditions.final_precision
                and pixels_of(resumed["clip"]) == self.conditions.pixels)

    def untrained(self, model: MoTE, resumed: dict | None) -> dict[str, float]:
        """Top-1 of the CLIP inside the model, frames averaged, on every dataset.

        Ask for it before weights are loaded into the visual tower: the model trains that tower
        itself, not a copy. resumed: a checkpoint, whose scores are taken where they were measured
        on as many frames, made alike, in the same precision. Without layers the temporal feature is
        0: z is the mean over frames.
        """
        known = {}
        if resumed and self.tested_alike(resumed):
            known = resumed["untrained"]
        dim = model.finetune_classes.shape[1]
        clip = model.with_temporal(TemporalTransformer(dim, num_layers=0))
        top1 = {}
        for name in self.datasets:
            if name in known:
                top1[name] = known[name]
            else:
                result = self.score(clip, name, self.conditions.final_precision)
                top1[name] = result["plain"]["top1"]
        return top1


def evaluation_line(result: dict) -> str:
    """What is printed of an evaluation in training: epoch, dataset, and both pairs of scores."""
    plain, modulated = result["plain"], result["modulated"]
    line = (f"epoch {result['epoch']}  {result['data']}  "
            f"top-1 {plain['top1']:.2f}  top-5 {plain['top5']:.2f}  "
            f"with modulation: top-1 {modulated['top1']:.2f}  top-5 {modulated['top5']:.2f}")
    if result["failed"]:
        line += f"  ({result['decoded']} of {result['videos']} videos decoded)"
    return line


def scalars(result: dict) -> dict[str, float]:
    """The scores of an evaluation by name, as TensorBoard shows them."""
    named = {}
    for name, end in (("plain", ""), ("modulated", " with modulation")):
        for score, words in (("top1", "top-1"), ("top5", "top-5")):
            named[f"{result['data']}/{words}{end}"] = result[name][score]
    return named
