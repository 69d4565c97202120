"""
The same evaluation on any number of ranks and workers, in batches of any size: the same answers.
"""
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torture.job import ROOT, Job, Trial

from mote.clip_backbone import class_embeddings, load_clip
from mote.datasets.dataset import open_dataset
from mote.model import MoTE
from mote.runtime.ranks import Ranks
from mote.scoring import evaluate as scoring
from mote.scoring.protocols import protocol_of
from mote.temporal_experts import TemporalTransformer


# --- 1. ranks -------------------------------------------------------------------------------------
def ranks(job: Job, options: Namespace) -> Iterator[Trial]:
    """Lists that do not divide by the number of ranks, also where a rank gets none: every video
    once, the same answers.
    """
    folder = job.folder / "data/toyworld-novel"
    lines = (folder / "val.txt").read_text().splitlines()
    few = folder / "few.txt"
    counts = (3,) if options.quick else (3, 7, len(lines))
    world_sizes = (1, 4) if options.quick else (1, 2, 3, 4)
    for count in counts:
        few.write_text("\n".join(lines[:count]) + "\n")
        first = None                                      # the answers on one rank
        for world_size in world_sizes:
            what = f"{count} videos on {world_size} ranks"
            out = job.folder / f"{count}-{world_size}.json"
            error = evaluate_on(job, world_size, few, out)
            if error is not None:
                yield Trial(what, error)
                continue

            split = json.loads(out.read_text())["splits"][0]
            first = first or split
            found = {split["videos"], split["decoded"], len(split["per_video"])}
            good = found == {count} and split["per_video"] == first["per_video"]
            yield Trial(what, "" if good else "other answers")


def evaluate_on(job: Job, world_size: int, videos: Path, out: Path) -> str | None:
    """eval.py on so many ranks; its result goes to `out`. -> the end of its errors if it fails

    Workers and batch differ with the number of ranks too: they must not matter either.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                "--nproc-per-node", str(world_size)]
    flags = ["--backbone", "toyworld", "--pretrained", "toyworld", "--data-root",
             str(videos.parent), "--list", str(videos), "--workers", str(world_size % 2),
             "--threads", "1", "--device", "cpu", "--clips", "2", "--batch", str(3 * world_size),
             "--json", str(out)]
    done = subprocess.run([*torchrun, "eval.py", *flags], cwd=ROOT, env=job.environment,
                          capture_output=True, text=True)
    return done.stderr[-200:] if done.returncode else None


# --- 2. batches and workers -----------------------------------------------------------------------
SIZES = ((16, 0), (1, 0), (7, 1), (40, 2))                # batch, workers


def batches(job: Job, options: Namespace) -> Iterator[Trial]:
    """Cosines differ by at most 1e-5."""
    sizes = SIZES[:3] if options.quick else SIZES
    cosines = evaluation_of(job)
    first = None                                          # the cosines of the first size
    for batch, workers in sizes:
        seen = cosines(batch, workers)
        first = first or seen
        far = max(float((a - b).abs().max()) for a, b in zip(first, seen))
        yield Trial(f"batch {batch}, {workers} workers: {far:.1e}",
                    "" if far <= 1e-5 else "other cosines")


def evaluation_of(job: Job):
    """A function of (batch, workers): the cosines of an evaluation on toyworld-novel.

    All that this torture takes from eval.py and mote.scoring.
    """
    cpu = Ranks(0, 1, torch.device("cpu"))
    folder = str(job.folder / "data/toyworld-novel")
    data = open_dataset("novel", "val", folder)
    clip, tokenizer = load_clip("toyworld", "toyworld")
    classes = class_embeddings(clip, tokenizer, data.classes)
    model = MoTE(clip.visual, TemporalTransformer(64, 2), classes, clip.logit_scale,
                 clip.pixels)
    plan = protocol_of(data, ("{}",), frames=8, resize=model.image_size, **asdict(model.pixels))
    scores = scoring.half_class_scores                    # gets all cosines of a list

    def cosines(batch: int, workers: int) -> list[Tensor]:
        seen = []

        def remember(cosine_BN: Tensor, labels_B: Tensor) -> dict:
            seen.append(cosine_BN.clone())
            return scores(cosine_BN, labels_B)

        with patch.object(scoring, "half_class_scores", remember):
            scoring.evaluate(model, data.videos, classes, cpu, plan, batch=batch, workers=workers)
        return seen

    return cosines
