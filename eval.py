"""
Evaluate a checkpoint, or CLIP alone, on a dataset or on one video of your own.

    python eval.py --checkpoint runs/demo --data toyworld-novel               # zero-shot, one view
    torchrun --nproc-per-node 8 eval.py --checkpoint RUN --data k400 --clips 4 --crops 3
    python eval.py --checkpoint runs/demo --video CLIP.mp4 --classes "star moving left, star moving right"

Every video counts once on any number of ranks; none is replaced. Each score stands with its number of videos and views,
with and without temporal feature modulation (Eq. 11). Float32 unless --precision bf16.

Dimension key   B videos   V views per video   T frames   D embedding   N classes
"""
import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from mote import toyworld
from mote.checkpoint import build_model, interpolate, read_checkpoint
from mote.clip_backbone import TEMPLATES, check_templates, class_embeddings, load_clip, text_hash
from mote.data import TestViews, Undecodable, collate, decode, require_decoder, segment_indices, view_crops
from mote.folders import find_folder, read_text
from mote.lists import needs_split, read_split
from mote.model import MoTE, cosine, probabilities, video_embedding
from mote.modulation import GAMMA, NEIGHBOURS
from mote.processes import Process, gather, one_line_errors, plain_errors, start, this_process, total
from mote.runs import describe
from mote.temporal_experts import POSITIONS, TemporalTransformer

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mote"          # class embeddings


def autocast(device: torch.device, precision: str):
    """bf16 autocast, or nothing for fp32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def view_cosines(model: MoTE, frames: Tensor, classes_ND: Tensor, k: int, gamma: float) -> tuple[Tensor, Tensor]:
    """uint8 views (B, V, T, 3, h, w) -> cosines (B, N), the mean over views, without and with modulation."""
    B, V = frames.shape[:2]
    e_BTD = model.frame_features(model.normalise(frames.flatten(0, 1)))       # B counts views from here ...
    t_BTD = model.temporal_features(e_BTD)
    rho_B = model.modulation(e_BTD, classes_ND, k, gamma)                     # one rho per view, as the authors' code
    both = (cosine(video_embedding(e_BTD, t_BTD, rho), classes_ND) for rho in (1, rho_B))
    return tuple(c.unflatten(0, (B, V)).mean(dim=1) for c in both)            # ... to here


@torch.no_grad()
def evaluate(model: MoTE, videos: list[tuple[str, int]], classes_ND: Tensor, process: Process, frames: int,
             clips: int = 1, crops: int = 1, resize: int | None = None, batch: int = 16, workers: int = 0,
             precision: str = "fp32", k: int = NEIGHBOURS, gamma: float = GAMMA) -> dict:
    """Top-1 and top-5 (per cent, over the decoded videos and with failures as wrong), summed over all ranks.

    Rank r takes videos r, r + world, ...: no sampler that pads, so `videos` in the result is len(videos) exactly.
    """
    model.eval()
    data = TestViews(videos, frames, model.image_size, resize, clips, crops)
    mine = torch.utils.data.Subset(data, range(process.rank, len(videos), process.world))
    loader = torch.utils.data.DataLoader(mine, max(1, batch // (clips * crops)), num_workers=workers,
                                         collate_fn=collate, pin_memory=process.device.type == "cuda")
    classes_ND = classes_ND.to(process.device)
    counts, failed = torch.zeros(6, dtype=torch.int64), []                    # seen, decoded, 2 x (top-1, top-5)
    for one in loader:
        decoded = torch.tensor([i not in one["failed"] for i in one["index"].tolist()])
        failed += one["failed"]
        counts[0] += len(decoded)
        counts[1] += decoded.sum()
        if decoded.any():
            labels, views = one["label"][decoded], one["frames"][decoded].to(process.device, non_blocking=True)
            with autocast(process.device, precision):
                both = view_cosines(model, views, classes_ND, k, gamma)
            for i, cosines in enumerate(both):
                best = cosines.topk(min(5, len(classes_ND))).indices.cpu() == labels[:, None]
                counts[2 + 2 * i] += best[:, 0].sum()
                counts[3 + 2 * i] += best.sum()
    seen, n, *right = total(counts.to(process.device)).tolist()
    names = [videos[i][0] for i in gather(failed)]
    if process.first and names:
        print(f"{len(names)} of {seen} videos could not be decoded: {', '.join(names[:20])}"
              f"{', ...' if len(names) > 20 else ''}")

    def scores(top1: int, top5: int) -> dict:
        return {"top1": 100 * top1 / max(n, 1), "top5": 100 * top5 / max(n, 1),
                "top1_failures_wrong": 100 * top1 / max(seen, 1), "top5_failures_wrong": 100 * top5 / max(seen, 1)}
    return {"videos": seen, "decoded": n, "failed": names, "classes": len(classes_ND), "frames": frames,
            "clips": clips, "crops": crops, "resize": resize or model.image_size,
            "plain": scores(*right[:2]), "modulated": scores(*right[2:])}


def dataset(name: str, data_root: str, split: str, process: Process, list_file: str = "", class_file: str = ""):
    """The (path, label) pairs and class names of a split; toyworld's sets are generated by rank 0 if not there."""
    if name in toyworld.SETS and not data_root:
        toyworld.ready(Path(os.environ.get("MOTE_DATA") or "data") / name, name, write=process.first)
    folder = find_folder(name, data_root)
    videos, classes = read_split(folder, split, list_file, class_file)
    if process.first and not list_file and needs_split(folder):
        print(f"{folder}: no lists, no train and val folders: split 80 / 20 within each class, "
              f"{len(videos)} for {split}")
    return videos, classes


def read_templates(file: str) -> tuple[str, ...]:
    """--templates FILE: one sentence a line with {} for the class; the paper's 28 without a file."""
    lines = tuple(line.strip() for line in read_text(file).splitlines() if line.strip()) if file else TEMPLATES
    check_templates(lines)
    return lines


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = plain_errors(argparse.ArgumentParser(
        "eval.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
    add = parser.add_argument
    add("--checkpoint", default="", help="a run's folder (last.pt), a checkpoint, the authors' file; none: CLIP alone")
    add("--data", default="", help="a dataset: $MOTE_DATA/NAME or data/NAME; toyworld's sets are generated")
    add("--data-root", default="", help="the dataset's folder, wherever it is")
    add("--list", default="", help="a list of videos in place of the folder's val list")
    add("--class-names", default="", help="a csv of id,name in place of the folder's")
    add("--video", default="", help="one video file, or a folder of JPEGs, in place of a dataset")
    add("--classes", default="", help="the classes to rank for --video, separated by commas")
    add("--templates", default="", help="a file of sentences with {} in place of the paper's 28")
    add("--frames", type=int, default=0, help="frames per view; 0: as in training")
    add("--clips", type=int, default=1, help="clips per video")
    add("--crops", type=int, default=1, choices=(1, 3), help="crops per clip")
    add("--resize", type=int, default=0, help="short side before the crop; 0: the model's image size")
    add("--neighbours", type=int, default=NEIGHBOURS, help="K of Eq. 11")
    add("--gamma", type=float, default=GAMMA, help="gamma of Eq. 11")
    add("--clip-weight", type=float, default=1.0,
        help="mix the original CLIP into the visual tower; the authors' tests: 0.99 x fine-tuned + 0.01 x original")
    add("--backbone", default="", help="open_clip model of CLIP alone, or of the text tower if not the checkpoint's")
    add("--pretrained", default="", help="its weights: a tag or a file")
    add("--batch", type=int, default=16, help="views at a time, per rank")
    add("--workers", type=int, default=2, help="decoding processes per rank")
    add("--threads", type=int, default=0, help="torch's threads per rank; 0: torch's choice")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N, ...")
    add("--precision", default="fp32", choices=("fp32", "bf16"))
    add("--json", default="", help="write the result to this file")
    options = parser.parse_args(argv)
    if bool(options.video) == bool(options.data or options.data_root):
        parser.error("give either --data (or --data-root) or --video")
    if options.video and not options.classes.strip(", "):
        parser.error('--video needs --classes "name, name, ..."')
    if not (options.checkpoint or options.backbone):
        parser.error("give --checkpoint, or --backbone and --pretrained for CLIP alone")
    if not 0 <= options.clip_weight <= 1 or (options.clip_weight < 1 and not options.checkpoint):
        parser.error(f"--clip-weight must lie in 0..1 and needs a --checkpoint, got {options.clip_weight}")
    if options.json and (Path(options.json).is_dir() or not Path(options.json).absolute().parent.is_dir()):
        parser.error(f"--json {options.json}: a file in a folder that exists is needed")
    for name in ("clips", "batch", "neighbours"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    for name in ("frames", "resize", "workers", "threads"):
        if getattr(options, name) < 0:
            parser.error(f"--{name} must not be negative, got {getattr(options, name)}")
    return options


def load(options: argparse.Namespace, names: list[str], process: Process) -> tuple[MoTE, Tensor, int]:
    """The model on its device, the class embeddings of the names, and the frames per clip."""
    checkpoint = read_checkpoint(options.checkpoint) if options.checkpoint else None
    about = checkpoint["clip"] if checkpoint else {"backbone": "", "pretrained": ""}
    backbone, pretrained = options.backbone or about["backbone"], options.pretrained or about["pretrained"]
    if not backbone:
        raise ValueError(f"{options.checkpoint} does not say which CLIP it came from, and its text tower is needed: "
                         "give --backbone and --pretrained")
    clip, tokenizer = load_clip(backbone, pretrained)
    clip = clip.to(process.device)
    if checkpoint and checkpoint.get("text_hash", text_hash(clip)) != text_hash(clip):
        raise ValueError(f"--pretrained {pretrained}: its text tower is not the one that {options.checkpoint} "
                         "was trained with")
    trained_with = tuple((checkpoint or {}).get("templates", ()))
    templates = read_templates(options.templates) if options.templates or not trained_with else trained_with
    classes_ND = class_embeddings(clip, tokenizer, names, templates, cache=CACHE)
    dim = classes_ND.shape[1]
    if checkpoint is None:                                                    # CLIP alone: no layers, mean over frames
        model = MoTE(clip.visual, TemporalTransformer(dim, 0), classes_ND, clip.logit_scale,
                     clip.image_mean, clip.image_std)
    else:
        mixed = checkpoint if options.clip_weight == 1 else interpolate(checkpoint, clip, options.clip_weight)
        model = build_model(mixed)
    if model.finetune_classes.shape[1] != dim:
        raise ValueError(f"--backbone {backbone} has D = {dim}, the checkpoint {model.finetune_classes.shape[1]}")
    frames = options.frames or (checkpoint or {}).get("frames", 8)
    if frames > POSITIONS and model.temporal.blocks:
        raise ValueError(f"--frames {frames}: the table of frame positions has {POSITIONS} rows")
    return model.to(process.device), classes_ND, frames


def main(argv: list[str] | None = None) -> dict | None:
    with one_line_errors("eval.py"):
        options = parse(argv)
        if options.threads:
            torch.set_num_threads(options.threads)
        process = this_process(options.device)
        require_decoder()
        if options.video:
            return show_video(options, process)
        name = options.data or Path(options.data_root).resolve().name
        videos, names = dataset(name, options.data_root, "val", process, options.list, options.class_names)
        model, classes_ND, frames = load(options, names, process)
        start(process)
        result = evaluate(model, videos, classes_ND, process, frames, options.clips, options.crops,
                          options.resize or None, options.batch, options.workers, options.precision,
                          options.neighbours, options.gamma)
        result = {"data": name, "checkpoint": options.checkpoint, **result}
        if process.first:
            print(f"{name}: {describe(result)}")
            if options.json:
                Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
        return result


@torch.no_grad()
def show_video(options: argparse.Namespace, process: Process) -> dict | None:
    """Rank the classes for one video by their probability with modulation; the one without it stands beside."""
    if not Path(options.video).exists():
        raise FileNotFoundError(f"--video {options.video}: no such file")
    names = list(dict.fromkeys(name.strip() for name in options.classes.split(",") if name.strip()))
    model, classes_ND, T = load(options, names, process)
    size = model.image_size
    try:
        frames = decode(options.video, lambda n: segment_indices(n, T, options.clips))
    except Undecodable as error:
        raise ValueError(f"--video {error}") from None
    views = view_crops(frames, size, options.resize or size, options.crops).flatten(0, 1)[None].to(process.device)
    with autocast(process.device, options.precision):
        both = view_cosines(model, views, classes_ND.to(process.device), options.neighbours, options.gamma)
    plain, modulated = (probabilities(cosines[:, None], model.logit_scale)[0].tolist() for cosines in both)
    ranked = sorted(zip(modulated, plain, names), reverse=True)
    if process.first:
        print("with modulation   without   class")
        for chance, without, name in ranked:
            print(f"{100 * chance:13.2f} %  {100 * without:6.2f} %   {name}")
        if options.json:
            rows = [dict(zip(("probability", "probability_without_modulation", "class"), row)) for row in ranked]
            Path(options.json).write_text(json.dumps(rows, indent=1))
    return {"ranked": ranked}


if __name__ == "__main__":
    main(sys.argv[1:])
