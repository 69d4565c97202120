"""
The training videos: do they decode, and fast enough.
"""
import math
import random
import time
from argparse import Namespace

from tools.examinations.findings import Finding, Findings
from tools.examinations.machine import workers_of

HUNG = 60                            # seconds for one video


def decoding(options: Namespace) -> Findings:
    """Videos drawn with the run's seed, each once, by one worker.

    A sample: broken videos are found by tools/check.py, which opens all of them. Toyworld's are
    generated, and left out. Raises what opening the dataset raises.
    """
    from mote.datasets.dataset import dataset_folder, open_dataset
    config = options.config
    if config.data.startswith("toyworld") and not config.data_root:
        return

    train = open_dataset(config.data, "train", config.data_root, config.train_list,
                         config.class_names, config.split, write=False)
    videos = train.videos
    if config.batch > len(videos):
        yield Finding(False, f"--batch {config.batch} is more than the {len(videos)} training "
                      "videos", f"--batch {len(videos)} or lower")

    drawn = random.Random(config.seed).sample(videos, min(options.videos, len(videos)))
    times, bad, error = decode_some(drawn, options)
    folder = dataset_folder(config.data, config.data_root, write=False)
    check = f"python tools/check.py --data {config.data} --data-root {folder}"
    if error is not None:
        reason = str(error).strip().splitlines()[-1][:200]
        yield Finding(False, f"decoding {drawn[len(times)][0]}: {reason}", check)
    if bad:
        too_many = len(bad) > 0.05 * len(times)                  # train.py stops at more
        yield Finding(False, f"{len(bad)} of {len(times)} videos do not decode, for one {bad[0]}",
                      check, "WRONG" if too_many else "warn")
    if len(times) > 1:
        yield fast_enough(times, options)


def decode_some(videos: list[tuple[str, int]], options: Namespace,
                ) -> tuple[list[float], list[str], Exception | None]:
    """When each video came, in seconds; those that do not decode; the error that ended it early.

    Ends when options.seconds are over. The error is of a worker that has died or hangs, or says
    that ten videos in a row do not decode: it came in the place of the video after the last.
    """
    import torch

    from mote.data import TrainingClips, collate

    config = options.config
    # As in training: the same crops and flips, in a process of its own, so one that dies is seen.
    clips = TrainingClips(videos, config.frames, options.side, config.seed)
    one_by_one = [[(0, i)] for i in range(len(videos))]
    loader = torch.utils.data.DataLoader(clips, batch_sampler=one_by_one, num_workers=1,
                                         prefetch_factor=1, timeout=HUNG, collate_fn=collate)
    times = []
    bad = []
    try:
        for i, batch in enumerate(loader):
            times.append(time.perf_counter())
            if batch["failed"]:
                bad.append(videos[i][0])
            if times[-1] - times[0] > options.seconds:
                break
    except (RuntimeError, ValueError) as error:
        return times, bad, error
    return times, bad, None


def fast_enough(times: list[float], options: Namespace) -> Finding:
    """The rate of one worker, and what all of them reach at most, beside the rate wanted."""
    workers = workers_of(options)
    rate = (len(times) - 1) / (times[-1] - times[0])             # the first includes the start
    most = rate * min(options.cores, options.ranks * max(1, workers))
    wanted = options.clips_per_second

    found = (f"decoding: {rate:.1f} clips/s of {options.config.frames} frames by one worker "
             f"({len(times)} videos), so by {options.ranks} x {workers} on {options.cores:g} cores "
             f"at most {most:.1f}")
    if wanted > 0:
        found += f"; wanted: {wanted:g}"
    # Decoding takes a whole core for each worker, so workers beyond the cores bring nothing.
    advice = f"{math.ceil(wanted / rate)} workers on as many cores, or tools/prepare.py"
    return Finding(wanted <= most, found, advice, "warn")
