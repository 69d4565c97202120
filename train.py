"""
Train MoTE: CLIP's visual tower and a temporal transformer of experts, on a folder of videos.

    python train.py                                                           # toyworld: generated videos; CPU, minutes
    python train.py --data k400 --data-root DIR --accumulate 8                # one GPU
    torchrun --nproc-per-node 8 train.py --data k400 --data-root DIR          # many

Read from the top: configuration, then, as in the paper's Figure 2, frames -> frame features -> temporal features ->
video embedding -> cosine -> three losses (`Objective`), then the optimiser's schedule, then the loop.

Dimension key   B clips   T frames   D embedding   N classes   E experts   L layers
"""
import argparse
import contextlib
import sys
from dataclasses import asdict, dataclass, field, fields
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from eval import CACHE, dataset, list_hash, protocol, read_templates
from mote.clip_backbone import class_embeddings, clip_config, load_clip, text_hash
from mote.data import MicroBatches, TrainingClips
from mote.merging import BETA, ETA, LAMBDA, classification_loss, draw_temperatures, merging_weights, mse_loss
from mote.merging import total_loss as L_ALL
from mote.model import MoTE, cosine, video_embedding
from mote.runtime.checkpoints import check_weights, read_checkpoint
from mote.runtime.errors import one_line_errors
from mote.runtime.guard import BadVideos, Refused, agree, finite
from mote.runtime.log import Meter, header, log
from mote.runtime.options import plain_errors
from mote.runtime.precision import autocast, dtype_for
from mote.runtime.ranks import find_ranks, from_rank_0, start
from mote.runtime.run_folder import check_resumed, evaluated, find_run, finish, open_run, record, restore, save
from mote.runtime.signals import Stop
from mote.runtime.watched_loading import Watch, watched
from mote.scoring.evaluate import evaluate
from mote.scoring.protocols import few_shot, repeated
from mote.temporal_experts import POSITIONS, ROUTINGS, TemporalTransformer, draw_experts

# --- 1. configuration -------------------------------------------------------------------------------------------------
# The paper's recipe (Table 6, Section 4.1) as argparse defaults: `train.py --data NAME --help` shows those in force.
# Not the authors' B/16 config, which has batch 192 and a CLIP learning rate of 3.5e-6.
BACKBONES = {"ViT-B": {"layers": 4, "epochs": 30}, "ViT-L": {"layers": 6, "epochs": 20}}
DATASETS = {
    "toyworld": {"backbone": "toyworld", "pretrained": "toyworld", "layers": 3, "epochs": 16, "warmup": 1.0,
                 "batch": 32, "lr": 3e-3, "clip_lr": 4e-4, "min_area": 0.5, "flip": False, "eval_every": 4,
                 "zero_shot": "toyworld-novel,toyworld-appearance"},
    "ucf101": {"epochs": 10}, "hmdb51": {"epochs": 10},         # the few-shot recipe, Appendix B
    "ssv2": {"epochs": 2, "flip": False},                       # likewise; "from left to right" is a class there
}


def opt(default, help: str, least: float = float("-inf"), choices=None):
    return field(default=default, metadata={"help": help, "least": least, "choices": choices})


@dataclass(frozen=True)
class Config:
    data: str = opt("", "dataset: k400, ucf101, ... in $MOTE_DATA/NAME or data/NAME; no --data-root either: toyworld")
    data_root: str = opt("", "the dataset's folder, wherever it is")
    train_list: str = opt("", "a list in place of the folder's train list")
    val_list: str = opt("", "a list in place of the folder's val list")
    class_names: str = opt("", "a csv of id,name in place of the folder's")
    split: str = opt("", "number of the official split to train and test on; empty: the only or the first one")
    shots: int = opt(0, "K of few-shot: train on K videos of each class, repeated to the full length; 0: on all", 0)
    zero_shot: str = opt("", "datasets to test on at the end, separated by commas")
    out: str = opt("", "the run's folder; empty: runs/DATA-DATE-TIME")
    resume: str = opt("", "auto (the newest good checkpoint of --out, else a fresh start) or a checkpoint")
    init: str = opt("", "start from these weights: another run, or the authors' checkpoint")

    backbone: str = opt("ViT-B-16-quickgelu", "open_clip model, or a .json that describes one")
    pretrained: str = opt("openai", "its weights: open_clip tag or file; empty: random")
    templates: str = opt("", "a file of sentences with {} in place of the paper's 28")
    frames: int = opt(8, "T, frames per clip", 1)
    layers: int = opt(4, "L, layers of the temporal transformer; 0: mean pooling", 0)
    experts: int = opt(4, "E, experts per layer; 1: the plain transformer", 1)
    routing: str = opt("multinomial", "how the experts are drawn", choices=ROUTINGS)
    weight_merged: float = opt(LAMBDA, "lambda of Eq. 10; 0 by default for 1 expert or 0 layers", 0)
    weight_mse: float = opt(ETA, "eta of Eq. 10; 0 by default for 1 expert or 0 layers", 0)
    beta: float = opt(BETA, "unit of the temperatures (Section 3.3)", 1e-6)

    epochs: int = opt(30, "passes over the training set", 1)
    warmup: float = opt(5.0, "epochs of linear warm-up from 0", 0)
    batch: int = opt(144, "clips per step, over all ranks and accumulation steps", 1)
    accumulate: int = opt(1, "micro-batches per rank and step", 1)
    lr: float = opt(5e-5, "peak learning rate of the temporal transformer", 0)
    clip_lr: float = opt(3e-6, "peak learning rate of the visual tower and the logit scale; 0 freezes them", 0)
    weight_decay: float = opt(0.2, "AdamW's, on every parameter as in the authors' code", 0)
    min_area: float = opt(0.08, "smallest part of a frame that a random crop keeps")
    flip: bool = opt(True, "horizontal flips; not where left and right are classes")
    seed: int = opt(0, "of everything random", 0)

    eval_every: int = opt(1, "epochs between evaluations", 1)
    save_every: int = opt(0, "steps between checkpoints, besides the one after every epoch; 0: none", 0)
    keep: int = opt(2, "newest checkpoints to keep", 1)
    log_every: int = opt(20, "steps between log lines", 1)
    workers: int = opt(2, "decoding processes per rank", 0)
    threads: int = opt(0, "torch's threads per rank; 0: torch's choice", 0)
    device: str = opt("auto", "auto, cpu, cuda, cuda:N, ...")
    precision: str = opt("auto", "auto: bf16 on GPUs that have it, else fp32", choices=("auto", "fp32", "tf32", "bf16"))
    compile: bool = opt(False, "torch.compile the training step, its shapes static")
    checkpoint_activations: bool = opt(False, "of the visual tower: less memory, for a second forward pass")

    @property
    def second_pass(self) -> bool:
        """Whether a step runs the merged experts too."""
        return self.weight_merged > 0 or self.weight_mse > 0


def parse_config(argv: list[str] | None = None) -> Config:
    """Command line -> Config. Data, backbone, sizes are read first: their recipes are the defaults of the rest."""
    parser = plain_errors(argparse.ArgumentParser("train.py", description=__doc__, allow_abbrev=False))
    for f in fields(Config):
        kind = {"type": f.type, "choices": f.metadata["choices"]}
        kind = {"action": argparse.BooleanOptionalAction} if f.type is bool else kind
        parser.add_argument("--" + f.name.replace("_", "-"), default=f.default, help=f.metadata["help"], **kind)
    args = [a for a in (sys.argv[1:] if argv is None else argv) if a not in ("-h", "--help")]
    first = parser.parse_known_args(args)[0]
    data = first.data or (Path(first.data_root).resolve().name if first.data_root else "toyworld")
    recipe = DATASETS.get(data, {}) if not (first.data_root and not first.data) else {}
    parser.set_defaults(data=data, **recipe)
    parser.set_defaults(**{**BACKBONES.get(parser.parse_known_args(args)[0].backbone[:5], {}), **recipe})
    first = parser.parse_known_args(args)[0]
    if first.experts == 1 or first.layers == 0:                  # the paper's baselines have one loss
        parser.set_defaults(weight_merged=0.0, weight_mse=0.0)
    config = Config(**vars(parser.parse_args(argv)))
    for f in fields(Config):
        value, least = getattr(config, f.name), f.metadata["least"]
        if f.type in (int, float) and not least <= value < float("inf"):
            parser.error(f"--{f.name.replace('_', '-')} must be a number of at least {least}, got {value}")
    if not 0 < config.min_area <= 1:
        parser.error(f"--min-area must be above 0 and at most 1, got {config.min_area}")
    if config.data in map(str.strip, config.zero_shot.split(",")):
        parser.error(f"--zero-shot {config.data} is what the run trains on: it is tested anyway")
    if config.frames > POSITIONS and config.layers:
        parser.error(f"--frames {config.frames}: the table of frame positions has {POSITIONS} rows")
    if config.resume == "auto" and not config.out:
        parser.error("--resume auto needs --out, the folder to look in")
    if config.resume and config.init:
        parser.error("--init is where a run starts and --resume where it goes on: give one")
    if config.layers * config.lr == 0 == config.clip_lr:
        parser.error("nothing to train: --clip-lr 0 freezes CLIP, and no temporal layer has an --lr above 0")
    return config


# --- 2. a training step, in the order of the paper's Figure 2 ---------------------------------------------------------
class Objective(nn.Module):
    """What DistributedDataParallel wraps: frames to L_TE, L_WMR and L_MSE. The second pass reuses frame features."""

    def __init__(self, model: MoTE, second_pass: bool):
        super().__init__()
        self.model, self.second_pass = model, second_pass

    def forward(self, frames: Tensor, labels_B: Tensor, expert_LE: Tensor, merging_LE: Tensor) -> tuple[Tensor, ...]:
        model, classes, scale = self.model, self.model.finetune_classes, self.model.logit_scale.exp()
        e_BTD = model.frame_features(model.normalise(frames))                                        # Eq. 1
        z_BD = video_embedding(e_BTD, model.temporal(e_BTD, expert_LE))                              # Eq. 2, 4
        loss_expert = classification_loss(cosine(z_BD, classes), labels_B, scale)                    # Eq. 3, 4
        if not self.second_pass:
            return loss_expert, torch.zeros_like(loss_expert), torch.zeros_like(loss_expert)
        t_BTD = model.temporal(e_BTD, merging_LE)                                                    # Eq. 7
        loss_merged = classification_loss(cosine(video_embedding(e_BTD, t_BTD), classes), labels_B, scale)   # Eq. 8
        return loss_expert, loss_merged, mse_loss(e_BTD + t_BTD, e_BTD)                              # Eq. 9


def draws(config: Config, step: int, m: int) -> tuple[Tensor, Tensor]:
    """Experts and temperatures of micro-batch m of a step, as weights (L, E) each: the same on every rank."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((config.seed, step, m)).generate_state(1)[0]))
    expert_LE = draw_experts(config.layers, config.experts, generator, config.routing)
    taus = draw_temperatures(config.layers, generator, config.beta)
    merging_LE = torch.stack([merging_weights(config.experts, tau) for tau in taus]) if taus else expert_LE
    return expert_LE, merging_LE


def learning_rate(epoch: float, peak: float, epochs: float, warmup: float) -> float:
    """Linear from 0 over `warmup` epochs, then half a cosine to 0 at `epochs` (Table 6). epoch counts fractions."""
    if epoch < warmup:
        return peak * epoch / warmup
    return peak * 0.5 * (1 + cos(pi * (epoch - warmup) / (epochs - warmup)))


# --- 3. the pieces that main() puts together --------------------------------------------------------------------------
def build_optimizer(model: MoTE, config: Config) -> torch.optim.AdamW:
    """AdamW with two learning rates; decay on everything, no clipping. Frozen parameters are in no group."""
    model.visual.requires_grad_(config.clip_lr > 0)
    model.logit_scale.requires_grad_(config.clip_lr > 0)
    model.temporal.requires_grad_(config.layers > 0 and config.lr > 0)
    parts = ([*model.visual.parameters(), model.logit_scale], config.clip_lr), (model.temporal.parameters(), config.lr)
    groups = [{"params": on, "peak": peak} for params, peak in parts if (on := [p for p in params if p.requires_grad])]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay, fused=True)


def main(argv: list[str] | None = None) -> dict:
    with one_line_errors("train.py"):
        return run(parse_config(argv))


# --- 4. the run -------------------------------------------------------------------------------------------------------
def run(cfg: Config) -> dict:
    """What a user can get wrong is read before the process group starts; then the loop; then the table."""
    ranks = find_ranks(cfg.device, cfg.threads)
    device, say = ranks.device, print if ranks.first else lambda *_, **__: None
    out, resumed = find_run(cfg.out, cfg.resume, cfg.data)
    init = cfg.init and read_checkpoint(cfg.init)

    # data, CLIP, and the temporal head with experts
    train, names, n = dataset(cfg.data, cfg.data_root, "train", ranks, cfg.train_list, cfg.class_names, cfg.split)
    train = repeated(drawn := few_shot(train, cfg.shots, cfg.seed) if cfg.shots else train, len(train))
    tests = {cfg.data: dataset(cfg.data, cfg.data_root, "val", ranks, cfg.val_list, cfg.class_names, cfg.split)}
    tests |= {zs: dataset(zs, "", "val", ranks) for zs in map(str.strip, cfg.zero_shot.split(",")) if zs}
    batches = MicroBatches(len(train), cfg.batch, cfg.epochs, cfg.seed, ranks.rank, ranks.world_size, cfg.accumulate,
                           start=resumed["step"] if resumed else 0)
    step, steps, every = batches.start, batches.stop, batches.steps_per_epoch
    if tests[cfg.data][1] != names or len({n, tests[cfg.data][2]} - {""}) > 1:
        raise ValueError(f"{cfg.data}: the classes (and the official split) of training and testing must be the same")
    clip, tokenizer = load_clip(cfg.backbone, cfg.pretrained)
    clip, templates = clip.to(device), list(read_templates(cfg.templates))
    identity = {"classes": names, "templates": templates, "text_hash": text_hash(clip), "batch": cfg.batch,
                "list of videos": [list_hash(drawn), list_hash(tests[cfg.data][0])]}
    if resumed:
        check_resumed(resumed, **identity)
    if step > steps:
        raise ValueError(f"--resume: step {step} of the checkpoint is past the {steps} steps of --epochs {cfg.epochs}")
    start(ranks)
    if (first := from_rank_0(step)) != step:
        raise ValueError(f"--resume: rank 0 found a checkpoint of step {first}, this one {step}: they must share --out")
    out, embeddings = from_rank_0((out, {name: class_embeddings(clip, tokenizer, classes, templates, CACHE)
                                         for name, (_, classes, _) in tests.items()} if ranks.first else None))
    finetune_MD, dim = embeddings[cfg.data], embeddings[cfg.data].shape[1]
    torch.manual_seed(cfg.seed)

    def assemble(temporal: TemporalTransformer) -> MoTE:
        return MoTE(clip.visual, temporal, finetune_MD, clip.logit_scale, clip.image_mean, clip.image_std).to(device)
    model = assemble(TemporalTransformer(dim, cfg.layers, cfg.experts))
    optimizer = build_optimizer(model, cfg)

    def test(temporal: TemporalTransformer, name: str) -> dict:
        plan = protocol(name, *tests[name], templates, frames=cfg.frames, resize=model.image_size)
        result = evaluate(assemble(temporal), tests[name][0], embeddings[name], ranks, plan, workers=cfg.workers,
                          skipped=out / "skipped.txt")
        if result["failed"]:
            say(f"{name}: {len(result['failed'])} of {result['videos']} videos could not be decoded", flush=True)
        return result
    state = resumed["model"] if resumed else {**init["model"], "finetune_classes": finetune_MD} if init else None
    if state:
        check_weights(model, state)                              # before the minutes that the next lines may take
    known = resumed["untrained"] if resumed and resumed["frames"] == cfg.frames else {}
    untrained = {name: known.get(name) or test(TemporalTransformer(dim, 0), name)["plain"]["top1"] for name in tests}
    if state:
        model.load_state_dict(state)
    if resumed:
        restore(optimizer, resumed["optimizer"])

    # the run folder and the header of the log
    dtype = dtype_for(device, cfg.precision)
    open_run(ranks, out, step, drawn, tests[cfg.data][0], names)
    about = {"config": asdict(cfg), **identity, "frames": cfg.frames, "untrained": untrained,
             "torch": str(torch.__version__),
             "clip": {"backbone": cfg.backbone, "pretrained": cfg.pretrained, "config": clip_config(cfg.backbone),
                      "mean": tuple(clip.image_mean), "std": tuple(clip.image_std)}}
    say(header(ranks, dtype, asdict(cfg), optimizer, untrained)
        + f"\n{cfg.data}: {len(drawn)} training videos{f' repeated to {len(train)}' * (len(drawn) < len(train))}, "
        f"{len(names)} classes, {every} steps per epoch, from step {step}; run folder {out}")

    # the loop: evaluate, accumulate, step unless it is refused, log, save
    model.visual.set_grad_checkpointing(cfg.checkpoint_activations)
    ddp = Objective(model, cfg.second_pass)
    ddp = torch.compile(ddp, dynamic=False) if cfg.compile else ddp
    ddp = nn.parallel.DistributedDataParallel(ddp, gradient_as_bucket_view=True) if ranks.world_size > 1 else ddp
    watch, refused = Watch(train, cfg.workers, out / "skipped.txt"), Refused(out / "refused.jsonl", ranks)
    clips = TrainingClips(train, cfg.frames, model.image_size, cfg.seed, cfg.flip, cfg.min_area, watch)
    stream = watched(clips, batches, watch, cfg.workers, pin_memory=device.type == "cuda")
    meter, bad, stop = Meter(ranks, resumed), BadVideos(train, resumed), Stop()
    results, done = {}, from_rank_0(evaluated(out))
    while True:
        epoch, epoch_ends = step // every, step % every == 0 < step
        if epoch_ends and (epoch % cfg.eval_every == 0 or step == steps):
            for name in [name for name in tests if step == steps or name == cfg.data if (step, name) not in done]:
                result = test(model.temporal.merged(), name)     # with the experts merged, Eq. 6
                results[name] = record(ranks, out, {"step": step, "epoch": epoch, "data": name, **meter.named(),
                                                      **result})
            meter.restart()                                      # neither this nor saving is clips/s
        if step == steps:
            break
        model.train().visual.train(cfg.clip_lr > 0)              # a frozen tower keeps its running statistics too
        refused.remember(model.visual)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / every, group["peak"], cfg.epochs, cfg.warmup)
        losses, videos = [], []
        for i in range(cfg.accumulate):
            batch = meter.wait_for(stream)
            bad.new, videos = bad.new + batch["failed"], videos + batch["index"].tolist()
            m = i * ranks.world_size + ranks.rank
            inputs = batch["frames"], batch["label"], *draws(cfg, step, m)
            # The global generator serves towers with dropout alone: a function of the step too.
            torch.manual_seed(int(np.random.SeedSequence((cfg.seed, step, m, 1)).generate_state(1)[0]))
            syncs = i == cfg.accumulate - 1 or ranks.world_size == 1
            with contextlib.nullcontext() if syncs else ddp.no_sync():      # around forward and backward
                with autocast(device, dtype):
                    three = ddp(*(tensor.to(device, non_blocking=True) for tensor in inputs))
                (L_ALL(*three, cfg.weight_merged, cfg.weight_mse) / cfg.accumulate).backward()      # Eq. 10
            losses.append(torch.stack(three).detach())
        step += 1
        stopping, refusing = agree(device, bool(stop.came), ~finite(losses, model.parameters()))
        if refusing:
            say(refused.write_down(step, losses, [train[index][0] for index in videos]), flush=True)
        else:
            optimizer.step()
            meter.add(torch.stack(losses).tolist(), len(videos))
        optimizer.zero_grad()
        log_now, ends = step % cfg.log_every == 0 or step % every == 0, stopping or refused.too_often
        save_now = ends or step % every == 0 or (cfg.save_every > 0 and step % cfg.save_every == 0)
        if log_now:
            say(log(meter, step, steps, every, cfg.weight_merged, cfg.weight_mse, optimizer), flush=True)
        for line in bad.report() if log_now or save_now else ():
            say(line)
        if save_now:
            save(ranks, out, cfg.keep, {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                                          "step": step, "meter": meter.state(), "undecodable": bad.known, **about})
        refused.check(), bad.check(len(drawn))
        if stopping:
            stop.leave(step, ranks, out)

    # the table
    return finish(ranks, out, untrained, {name: results.get(name) or test(model.temporal.merged(), name)
                                            for name in tests})


if __name__ == "__main__":
    main(sys.argv[1:])
