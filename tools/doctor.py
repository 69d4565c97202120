"""
What on this machine keeps train.py from running, makes it slow, or is too small for it; and what to do about each.

    python tools/doctor.py                                               # the machine alone: seconds
    python tools/doctor.py --data k400 --data-root DIR --accumulate 8    # and what this training needs
    python tools/doctor.py --ranks 8 --data k400 --data-root DIR         # under torchrun --nproc-per-node 8

Takes every option of train.py: put it in the place of (torchrun ...) train.py. With any of them it also has
a worker decode some of the training videos, and makes training steps of one and of two clips with random weights, whose
memory it extrapolates to the batch (a minute for ViT-B/16 on a CPU). Nothing is written but temporary files.
A line is a finding: ok, warn or WRONG, what was found -> what to do. MOTE_TRACEBACK=1 shows where an error arose.
Exit status: 0 nothing WRONG, 1 something WRONG, 2 a mistake in the command.
"""
import argparse
import importlib.metadata
import math
import os
import platform
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))        # but no import of mote up here: that torch cannot be imported is a finding too
Findings = Iterator[tuple]           # good?, what was found, what to do about it, "warn" where WRONG would be too much
TOGETHER = "pip install --upgrade torch torchvision torchcodec, in one command and from one index"
FFMPEG = "apt-get install ffmpeg, conda install ffmpeg, or brew install ffmpeg"
HUNG = 60                            # seconds for one video


def size(n: float) -> str:
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def limit(file: str) -> str:
    """Of this container (control groups, version 2); "max" for none."""
    path = Path("/sys/fs/cgroup", file)
    return path.read_text() if path.is_file() else "max"


# --- 1. what is installed: without it nothing else can be looked at ---------------------------------------------------
def packages(o: Namespace) -> Findings:
    """Those of pyproject.toml are there, new enough and can be imported. mote itself need not be installed."""
    listed = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)[1]
    good = [f"Python {platform.python_version()}"]
    for name, least in [*re.findall(r'"([\w-]+)(?:>=([\d.]+))?"', listed), ("torchvision", ""), ("tqdm", "")]:
        try:
            version = importlib.metadata.version(name)
            importlib.import_module(name.removesuffix("_torch"))
        except importlib.metadata.PackageNotFoundError:
            yield False, f"{name} is not installed", "pip install -e ."
        except Exception as error:
            yield False, *explain(name, error, f"its version does not fit torch's: {TOGETHER}")
        else:
            good.append(f"{name} {version}")
            if numbers(version) < numbers(least):
                yield False, f"{name} {version} is older than {least}", f'pip install --upgrade "{name}>={least}"'
    yield True, ", ".join(good)


def explain(name: str, error: Exception, advice: str) -> tuple[str, str]:
    """What was found, what to do. torchcodec's message holds a traceback for each FFmpeg that it has tried to load."""
    lines = re.findall(r"\S.*(?:undefined symbol|cannot open shared object|Library not loaded).*", str(error))
    others = [line for line in lines if not re.search(r"\blib(av|sw)\w+\.|undefined symbol: (av|sw)", line)]
    if "libtorchcodec" in str(error) and others:
        return f"torchcodec does not load: {others[0]}", f"its version does not fit torch's: {TOGETHER}"
    if "libtorchcodec" in str(error):
        program = "; the ffmpeg program alone is not enough" * bool(shutil.which("ffmpeg"))
        return f"torchcodec finds no FFmpeg libraries ({'; '.join(lines[-1:])}){program}", FFMPEG
    return f"{name}: {(str(error).strip().splitlines() or [type(error).__name__])[0][:300]}", advice


def ffmpeg(o: Namespace) -> Findings:
    """What torchcodec has loaded: since its version 0.16, importing it says nothing where there is no FFmpeg."""
    import torchcodec.decoders
    try:
        torchcodec.decoders.VideoDecoder(b"no video")
    except Exception as error:                                   # of the bytes, which are none, or of the libraries
        if "libtorchcodec" in str(error):
            raise
    yield True, f"torchcodec has loaded FFmpeg {torchcodec.ffmpeg_major_version}'s libraries"
    program = shutil.which("ffmpeg")
    yield program, f"the ffmpeg program: {program or 'none'}", f"only tools/prepare.py needs it: {FFMPEG}", "warn"


# --- 2. what this machine can do --------------------------------------------------------------------------------------
def generated(o: Namespace) -> Findings:
    """A clip, written as toyworld's are, comes back whole and in order."""
    from torchcodec.encoders import VideoEncoder

    from mote.data import decode, np
    from mote.toyworld import make_clip
    clip = make_clip("star", "red", "moving left", (0,))
    with tempfile.TemporaryDirectory() as folder:
        VideoEncoder(clip, frame_rate=12).to_file(f"{folder}/clip.mp4", codec="libx264", crf=18, preset="veryfast")
        frames = decode(f"{folder}/clip.mp4", np.arange)
    apart = (frames.float()[:, None] - clip.float()).abs().mean((2, 3, 4))                     # (decoded, encoded)
    in_order, mean = apart.argmin(1).tolist() == list(range(len(clip))), apart.amin(1).mean()
    yield (in_order and mean < 16, f"a generated video: {len(frames)} of {len(clip)} frames decoded, "
           f"{'' if in_order else 'not '}in order, mean error {mean:.1f} of 255", f"another FFmpeg: {FFMPEG}")


def device(o: Namespace) -> Findings:
    from train import dtype_for, find_ranks, torch
    o.device = torch.device("cpu")                               # if the next line raises
    o.device = find_ranks(o.config.device).device
    precision = dtype_for(o.device, "auto")
    if o.device.type == "cuda":
        about, count = torch.cuda.get_device_properties(o.device), torch.cuda.device_count()
        yield (precision == "bf16", f"{about.name}, {size(about.total_memory)}: --precision auto is {precision}",
               "it has no bf16, so activations take twice the memory: raise --accumulate", "warn")
        yield o.ranks <= count, f"{o.ranks} ranks, {count} GPUs", f"torchrun --nproc-per-node {count}"
    elif o.config.device == "auto" and shutil.which("nvidia-smi"):
        yield (False, f"nvidia-smi is there, but torch {torch.__version__} finds no GPU",
               "a torch for the CUDA version that nvidia-smi shows, or unset CUDA_VISIBLE_DEVICES, or --device cpu")
    else:
        yield True, f"{o.device.type}: --precision auto is {precision}"


def threads(o: Namespace) -> Findings:
    """Where OMP_NUM_THREADS is not set, torchrun gives one thread to each of several ranks."""
    from train import torch
    o.cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if not (quota := limit("cpu.max")).startswith("max"):
        o.cores = min(o.cores, numbers(quota)[0] / numbers(quota)[1])
    each = o.config.threads or (torch.get_num_threads() if o.ranks == 1 or os.environ.get("OMP_NUM_THREADS") else 1)
    share, busy = max(1, int(o.cores / o.ranks)), o.ranks * each > o.cores
    yield (not busy, f"{o.cores:g} cores for {o.ranks} x {each} threads of torch"
           + " (on 2 cores, 2 processes of 2 threads took 15 to 25 times as long as of 1)" * busy,
           f"--threads {share}" + f" and torchrun --nproc-per-node {int(o.cores) or 1}" * (o.ranks > o.cores),
           "WRONG" if o.device.type == "cpu" else "warn")
    yield (o.ranks * o.config.workers <= o.cores, f"{o.cores:g} cores for {o.ranks} x {o.config.workers} workers",
           f"--workers {share}", "warn")


def shared_memory(o: Namespace) -> Findings:
    """Where each worker leaves two batches, and one more is in use; what lies there are open files."""
    clips, workers = math.ceil(o.config.batch / o.ranks / o.config.accumulate), o.config.workers
    need = o.ranks * (2 * workers + (workers > 0)) * clips * o.config.frames * 3 * o.side**2
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free
        yield (need <= free, f"/dev/shm: {size(free)} free, {o.ranks} x {workers} workers fill up to {size(need)}",
               f"docker run --shm-size={math.ceil(2 * need / 1e9)}g, a higher --accumulate, or --workers 0")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    yield soft >= 1024 or soft == resource.RLIM_INFINITY, f"{soft} open files at most", "ulimit -n 4096", "warn"


def disk(o: Namespace) -> Findings:
    """For the checkpoints kept and the one being written, each of weights and AdamW's two moments; and elsewhere."""
    from mote.clip_backbone import build_visual
    from train import CACHE, TemporalTransformer, torch
    c, files = o.config, o.config.keep + 1
    with torch.device("meta"):                                   # shapes without numbers
        parts = build_visual(o.clip), TemporalTransformer(o.clip["embed_dim"], c.layers, c.experts)
    checkpoint = 3 * 4 * sum(p.numel() for part in parts for p in part.parameters())
    for folder, need, what, advice, level in (
            (c.out or "runs", files * checkpoint, f"{files} checkpoints", "another --out, or --keep 1", "WRONG"),
            (tempfile.gettempdir(), 1e9, "temporary files", "TMPDIR=FOLDER", "warn"),
            (CACHE.parent, 2e9, "CLIP's weights", "XDG_CACHE_HOME=FOLDER", "warn")):
        there = next(parent for parent in Path(folder, "_").absolute().parents if parent.exists())
        free, ours = shutil.disk_usage(there).free, os.access(there, os.W_OK)
        yield (free >= need and ours, f"{folder}: {size(free)} free{', not ours to write in' * (not ours)}; {what} "
               f"need {size(need)}", advice, level)


# --- 3. what this training needs --------------------------------------------------------------------------------------
def decoding(o: Namespace) -> Findings:
    """Videos drawn with the run's seed, each once, by one worker. Toyworld's are generated: left out."""
    from eval import dataset, dataset_folder
    from mote.data import TrainingClips, collate, torch
    c, quiet = o.config, Namespace(first=False)
    if c.data.startswith("toyworld") and not c.data_root:
        return
    videos = dataset(c.data, c.data_root, "train", quiet, c.train_list, c.class_names, c.split)[0]
    if c.batch > len(videos):
        yield (False, f"--batch {c.batch} is more than the {len(videos)} training videos",
               f"--batch {len(videos)} or lower")
    videos = random.Random(c.seed).sample(videos, min(o.videos, len(videos)))
    loader = torch.utils.data.DataLoader(
        TrainingClips(videos, c.frames, o.side, c.seed), batch_sampler=[[(0, i)] for i in range(len(videos))],
        num_workers=1, prefetch_factor=1, timeout=HUNG, collate_fn=collate)
    check = f"python tools/check.py --data {c.data} --data-root {dataset_folder(c.data, c.data_root, quiet)}"
    came, bad = [], []
    try:
        for i, batch in enumerate(loader):
            came.append(time.perf_counter())
            bad += [videos[i][0]] * bool(batch["failed"])
            if came[-1] - came[0] > o.seconds:
                break
    except (RuntimeError, ValueError) as error:                  # it died, it hangs, or ten in a row do not decode
        yield False, f"decoding {videos[len(came)][0]}: {str(error).strip().splitlines()[-1][:200]}", check
    if bad:
        yield (False, f"{len(bad)} of {len(came)} videos do not decode, for one {bad[0]}", check,
               "WRONG" if len(bad) > 0.05 * len(came) else "warn")               # train.py stops at more
    if len(came) > 1:
        rate = (len(came) - 1) / (came[-1] - came[0])
        most = rate * min(o.cores, o.ranks * max(1, c.workers))
        yield (o.clips_per_second <= most, f"decoding: {rate:.1f} clips/s of {c.frames} frames by one worker "
               f"({len(came)} videos), so by {o.ranks} x {c.workers} on {o.cores:g} cores at most {most:.1f}"
               + f"; wanted: {o.clips_per_second:g}" * (o.clips_per_second > 0),
               f"{math.ceil(o.clips_per_second / rate)} workers on as many cores, or tools/prepare.py", "warn")


def take_steps(o: Namespace, clips: int) -> tuple[int, int]:
    """Two training steps, AdamW's included, on random frames. -> their peak of memory; what is free, in bytes"""
    import train
    from tools.bench.steps import frames_for, new_model, peak_memory, torch
    c, ranks = o.config, train.find_ranks(o.config.device, o.config.threads)
    at = Namespace(backbone=c.backbone, device=ranks.device)
    free = torch.cuda.mem_get_info(ranks.device)[0] if ranks.device.type == "cuda" else free_memory()
    clip = train.load_clip(c.backbone, "")[0].to(at.device)      # its text tower stays there too
    model = new_model(at, clip.visual, c.layers, c.experts).train()
    optimizer, objective = train.build_optimizer(model, c), train.Objective(model, c.second_pass)
    model.visual.set_grad_checkpointing(c.checkpoint_activations)
    for step in range(2):                                        # from the second on the moments are there
        inputs = frames_for(at, model, clips, c.frames), torch.zeros(clips, dtype=torch.long), *train.draws(c, step, 0)
        with train.autocast(at.device, train.dtype_for(at.device, c.precision)):
            losses = objective(*(tensor.to(at.device) for tensor in inputs))
        train.L_ALL(*losses, c.weight_merged, c.weight_mse).backward()
        optimizer.step()
        optimizer.zero_grad()
    return peak_memory(at.device), free


def free_memory() -> int:
    """Bytes that a process on the CPU can have; on macOS, what there is in all."""
    info = Path("/proc/meminfo")
    free = 1024 * numbers(info.read_text().partition("MemAvailable:")[2])[0] if info.exists() else (
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if not limit("memory.max").startswith("max"):                # what the container's file cache takes, it gives back
        cached = numbers(limit("memory.stat").partition("\ninactive_file ")[2])[0]
        free = min(free, int(limit("memory.max")) - int(limit("memory.current")) + cached)
    return max(0, free)


def memory(o: Namespace) -> Findings:
    """GPUs have a memory each; the ranks on a CPU share one."""
    share, left = divmod(o.config.batch, o.ranks * o.config.accumulate)
    if left:
        raise ValueError(f"--batch {o.config.batch} must be a multiple of ranks x accumulation = {o.ranks} x "
                         f"{o.config.accumulate}")
    peaks = []
    for clips in sorted({1, min(2, share)}):
        done = subprocess.run([sys.executable, __file__, "--clips", str(clips), *o.arguments], text=True,
                              capture_output=True, timeout=900)
        if done.returncode:
            why = "".join(done.stderr.splitlines()[-1:]) or f"signal {-done.returncode}, of which 9 is want of memory"
            yield False, f"training steps of {clips} clips: {why[:300]}", "fewer --frames, or a smaller --backbone"
            return
        peak, free = numbers(done.stdout.splitlines()[-1])
        peaks.append(peak)
    together = 1 if o.device.type == "cuda" else o.ranks

    def need(accumulate: int) -> float:
        return together * (peaks[0] + max(0, peaks[-1] - peaks[0]) * (o.config.batch / o.ranks / accumulate - 1))
    fits = [n for n in range(1, o.config.batch // o.ranks + 1)
            if o.config.batch % (o.ranks * n) == 0 and need(n) <= 0.9 * free]    # other programs need some too
    yield (o.config.accumulate in fits, f"memory: {together} x {share} clips take {size(need(o.config.accumulate))}"
           + f", extrapolated from {size(peaks[0])} for one, {size(peaks[-1])} for two" * (share > 2)
           + f"; {size(free)} free", f"--accumulate {fits[0]}" if fits else
           "--checkpoint-activations, fewer --frames, or a smaller --backbone")


# --- 4. all of it -----------------------------------------------------------------------------------------------------
def report(o: Namespace, *checks) -> int:
    """Print what they find; that one raises is a finding too. -> how many are WRONG"""
    levels = []

    def say(good, found: str, advice: str = "", level: str = "WRONG") -> None:
        levels.append("ok" if good else level)
        print(f"{levels[-1]:6s}{found}" + f" -> {advice}" * bool(advice and not good), flush=True)
    for check in checks:
        try:
            for finding in check(o):
                say(*finding)
        except Exception as error:
            if os.environ.get("MOTE_TRACEBACK") == "1":
                raise
            say(False, *explain(check.__name__, error, FFMPEG if check in (ffmpeg, generated) else ""))
    return levels.count("WRONG")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("doctor.py", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ranks", type=int, default=1, help="torchrun's --nproc-per-node")
    add("--videos", type=int, default=50, help="training videos to decode")
    add("--seconds", type=float, default=30, help="when to stop decoding them")
    add("--clips-per-second", type=float, default=0, help="that decoding must keep up with; train.py's log shows them")
    add("--clips", type=int, default=0, help=argparse.SUPPRESS)  # of a process that measures memory
    o, o.arguments = parser.parse_known_args(argv)
    if min(o.ranks, o.videos) < 1 or not o.seconds > 0:
        parser.error("--ranks and --videos must be at least 1, --seconds above 0")
    if not o.clips and report(o, packages, ffmpeg):
        print("the other checks need these first")
        return 1
    import train
    try:
        o.config = train.parse_config(o.arguments)
        o.clip = train.clip_config(o.config.backbone)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    o.side = max(numbers(str(o.clip["vision_cfg"].get("image_size", 224))))      # one number, or two
    if o.clips:
        print(*take_steps(o, o.clips))
        return 0
    training = (decoding, memory) if o.arguments else ()
    print(f"ok    looked at for train.py on {o.config.data}, {o.config.backbone}, --batch {o.config.batch}:")
    return min(1, report(o, generated, device, threads, shared_memory, disk, *training))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
