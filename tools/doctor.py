"""
What on this machine keeps train.py from running, makes it slow, or is too small; what to do.

    python tools/doctor.py                                              # the machine: seconds
    python tools/doctor.py --data k400 --data-root DIR --accumulate 3   # and what a training needs
    python tools/doctor.py --ranks 8 --data k400 --data-root DIR        # under torchrun, 8 ranks

Takes every option of train.py: put it in the place of train.py, and --ranks 8 in the place of
torchrun --nproc-per-node 8. With any option of train.py it also lets a worker decode some of the
training videos, and makes training steps of one and of two clips with random weights, whose memory
it extrapolates to the batch (a minute for ViT-B/16 on a CPU). Nothing is written but temporary
files.

A line is a finding: ok, warn or WRONG, what was found -> what to do. MOTE_TRACEBACK=1 shows where
an error arose. Exit status: 0 nothing WRONG, 1 something WRONG, 2 a mistake in the command.
"""
import argparse
import os
import sys
from argparse import Namespace
from pathlib import Path

# No import of mote or torch up here: that torch cannot be imported is a finding too.
sys.path.insert(0, str(Path(__file__).parents[1]))
from tools.examinations.findings import Finding, Findings, numbers  # noqa: E402
from tools.examinations.installed import FFMPEG, explain, ffmpeg, generated, packages  # noqa: E402
from tools.examinations.machine import device, disk, shared_memory, threads, tower  # noqa: E402
from tools.examinations.step_memory import memory, take_steps  # noqa: E402
from tools.examinations.training_videos import decoding  # noqa: E402


def report(options: Namespace, *examinations) -> int:
    """Print what they find; that one raises is a finding too. Returns how many are WRONG.

    Each line is printed at once: an examination that hangs can be seen by the line before it.
    """
    wrong = 0
    for finding in all_findings(options, examinations):
        level = "ok" if finding.good else finding.level
        advice = ""
        if finding.advice and not finding.good:
            advice = f" -> {finding.advice}"
        print(f"{level:6s}{finding.found}{advice}", flush=True)
        if level == "WRONG":
            wrong += 1
    return wrong


def all_findings(options: Namespace, examinations) -> Findings:
    """The findings of one examination after another, as they come.

    One that raises ends there, and the next ones run: a broken GPU says nothing of the disk.
    """
    for examine in examinations:
        try:
            yield from examine(options)
        except Exception as error:
            if os.environ.get("MOTE_TRACEBACK") == "1":
                raise
            advice = FFMPEG if examine in (ffmpeg, generated) else ""
            yield Finding(False, *explain(examine.__name__, error, advice))


def parse(argv: list[str] | None) -> tuple[argparse.ArgumentParser, Namespace]:
    """The parser, for its errors, and the options. Those of train.py are left in `arguments`."""
    parser = argparse.ArgumentParser("doctor.py", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ranks", type=int, default=1, help="torchrun's --nproc-per-node")
    add("--videos", type=int, default=50, help="training videos to decode")
    add("--seconds", type=float, default=30, help="when to stop decoding them")
    add("--clips-per-second", type=float, default=0,
        help="that decoding must keep up with; train.py's log shows them")
    add("--clips", type=int, default=0, help=argparse.SUPPRESS)  # of a process measuring memory
    options, arguments = parser.parse_known_args(argv)
    options.arguments = arguments

    if min(options.ranks, options.videos) < 1 or not options.seconds > 0:
        parser.error("--ranks and --videos must be at least 1, --seconds above 0")
    return parser, options


def main(argv: list[str] | None = None) -> int:
    """Examine the machine and the run that train.py was asked for. -> the exit status"""
    parser, options = parse(argv)
    if not options.clips and report(options, packages, ffmpeg):
        print("the other checks need these first")
        return 1

    import train
    from mote.clip_backbone import clip_config
    try:
        options.config = train.parse_config(options.arguments)
        options.clip = clip_config(options.config.backbone)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    image_size = options.clip["vision_cfg"].get("image_size", 224)
    options.side = max(numbers(str(image_size)))                 # one number, or two

    # A child of step_memory.measure: it prints two numbers of bytes, and examines nothing.
    if options.clips:
        print(*take_steps(options, options.clips))
        return 0

    config = options.config
    print(f"ok    looked at for train.py on {config.data}, {config.backbone}, "
          f"--batch {config.batch}:")
    examinations = [tower, generated, device, threads, shared_memory, disk]
    # These two need a real run: without its options, the sizes would be those of toyworld.
    if options.arguments:
        examinations += [decoding, memory]
    return min(1, report(options, *examinations))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
