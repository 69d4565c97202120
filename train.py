"""
Train MoTE: CLIP's visual tower and a temporal transformer of experts, on a folder of videos.

    python train.py                                    # toyworld: generated videos; CPU, minutes
    torchrun --nproc-per-node 3 train.py --data k400 --data-root DIR              # 3 GPUs
    python train.py --data k400 --data-root DIR --accumulate 3                    # one GPU

Read from the top: the configuration; a training step in the order of the paper's Figure 2, frames
-> frame features -> temporal features -> video embedding -> cosine -> losses (`Objective`); the
optimiser and its schedule; what a run is made of; the loop.

Dimension key   B clips   T frames   D embedding   M training classes   E experts   L layers
"""
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import cos, pi

import torch
from torch import Tensor, nn

from mote.clip_backbone import checkpoint_activations, load_clip
from mote.data import MicroBatches, TrainingClips
from mote.datasets.dataset import train_and_tests
from mote.merging import BETA, ETA, LAMBDA, classification_loss, draw_merging_weights, mse_loss
from mote.merging import total_loss as L_ALL
from mote.model import MoTE
from mote.runtime import run_folder
from mote.runtime.board import Board
from mote.runtime.errors import one_line_errors
from mote.runtime.guard import Guard
from mote.runtime.log import Log, Meter, header
from mote.runtime.options import comma_separated, differences, option, parse, positive
from mote.runtime.parallel import data_parallel, on_device, sync_only_on_the_last
from mote.runtime.precision import PRECISIONS, TRAINING_PRECISIONS, autocast, dtype_for
from mote.runtime.prompts import embed_datasets, read_templates
from mote.runtime.ranks import Ranks, find_ranks, start
from mote.runtime.recipes import RECIPES, check_recipe
from mote.runtime.steps import is_due, seed_of
from mote.runtime.watched_loading import Watch, watched
from mote.runtime.workers import check_workers, count_workers
from mote.scoring.benchmark import Benchmark, Conditions
from mote.scoring.protocols import few_shot, repeated
from mote.temporal_experts import ROUTINGS, TemporalTransformer, draw_experts


# --- 1. configuration ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Config:
    """The paper's recipe for ViT-B/16 on K400 (Table 6, Section 4.1).

    Not the authors' config, which has batch 192 and a CLIP learning rate of 3.5e-6. Datasets and
    other backbones have defaults of their own (mote/runtime/recipes.py): `train.py --data NAME
    --help` shows those in force.
    """
    data: str = option("", "k400, ... in $MOTE_DATA/ or data/; empty: --data-root's, or toyworld")
    data_root: str = option("", "the dataset's folder, wherever it is")
    train_list: str = option("", "a list in place of the folder's train list")
    val_list: str = option("", "a list in place of the folder's val list")
    class_names: str = option("", "a csv of id,name in place of the folder's")
    split: str = option("", "number of the published split; empty: the only or the first one")
    shots: int = option(0, "K of few-shot: train on K videos of each class; 0: on all")
    zero_shot: str = option("", "datasets to test on at the end, separated by commas")
    out: str = option("", "the run's folder; empty: runs/DATA-DATE-TIME")
    resume: str = option("", "auto (--out's newest good checkpoint, if any) or a checkpoint")
    init: str = option("", "start from these weights: a run, or the authors' checkpoint")

    backbone: str = option("ViT-B-16-quickgelu", "open_clip model, .json, local-dir:, hf-hub:")
    pretrained: str = option("openai", "its weights: open_clip tag or file; empty: random")
    as_tag: str = option("", "the tag whose weights the file holds: sets mean, std, resizing")
    tokenizer: str = option("", "the tokenizer's folder, in place of one from Hugging Face's hub")
    templates: str = option("", "a file of sentences with {} in place of the paper's 28")
    frames: int = positive(8, "T, frames per clip")
    layers: int = option(4, "L, layers of the temporal transformer; 0: mean pooling")
    experts: int = positive(4, "E, experts per layer; 1: the plain transformer")
    routing: str = option("multinomial", "how the experts are drawn", choices=ROUTINGS)
    weight_merged: float = option(LAMBDA, "lambda of Eq. 10; default 0 for 1 expert or 0 layers")
    weight_mse: float = option(ETA, "eta of Eq. 10; default 0 for 1 expert or 0 layers")
    beta: float = option(BETA, "unit of the temperatures (Section 3.3)", least=1e-6)

    epochs: int = positive(30, "passes over the training set")
    warmup: float = option(5.0, "epochs of linear warm-up from 0")
    batch: int = positive(144, "clips per step, over all ranks and micro-batches")
    accumulate: int = positive(1, "micro-batches per rank and step")
    lr: float = option(5e-5, "peak learning rate of the temporal transformer")
    clip_lr: float = option(3e-6, "peak rate of visual tower and logit scale; 0: frozen")
    weight_decay: float = option(0.2, "AdamW's, on every parameter, as the authors'")
    min_area: float = option(0.08, "smallest part of a frame in a random crop", above=0, most=1)
    flip: bool = option(True, "horizontal flips; --no-flip if classes tell left from right")
    gray: bool = option(True, "one clip in five loses its colours")
    seed: int = option(0, "of everything random")

    eval_every: int = positive(1, "epochs between evaluations")
    save_every: int = option(0, "steps between checkpoints within an epoch; 0: none")
    keep: int = positive(2, "newest checkpoints to keep")
    keep_best: bool = option(False, "best.pt: of the best close-set top-1 so far")
    log_every: int = positive(20, "steps between log lines")
    tensorboard: bool = option(False, "curves for TensorBoard, in --out", needs="tensorboard")
    workers: str = option("auto", "decoding processes per rank; auto: 2, on a GPU up to 16")
    threads: int = option(0, "torch's threads per rank; 0: torch's choice")
    device: str = option("auto", "auto, cpu, cuda, cuda:N, ...")
    precision: str = option("auto", "auto: bf16 where the GPU has it", choices=TRAINING_PRECISIONS)
    eval_precision: str = option("fp32", "of tests between epochs", choices=TRAINING_PRECISIONS)
    final_precision: str = option("fp32", "of the first and last tests", choices=PRECISIONS)
    compile: bool = option(False, "torch.compile the training step, its shapes static")
    checkpoint_activations: bool = option(False, "of the visual tower: less memory, more time")

    @property
    def second_pass(self) -> bool:
        """Whether a step runs the merged experts too."""
        return self.weight_merged > 0 or self.weight_mse > 0


def parse_config(argv: list[str] | None = None) -> Config:
    """Command line -> Config. Raises ValueError, one line, for options that do not go together."""
    config = parse(Config, "train.py", __doc__, RECIPES, argv)
    check_recipe(config.frames, config.layers, config.lr, config.clip_lr, config.epochs,
                 config.warmup)
    check_workers(config.workers)
    return config


# --- 2. a training step, in the order of the paper's Figure 2 ------------------------------------
class Objective(nn.Module):
    """Frames to losses, by name. A loss of your own goes here, its weight in `weighted_sum`."""

    def __init__(self, model: MoTE, second_pass: bool):
        super().__init__()
        self.model = model
        self.second_pass = second_pass

    def forward(self, frames: Tensor, labels_B: Tensor, expert_LE: Tensor,
                merging_LE: Tensor) -> dict[str, Tensor]:
        """uint8 frames (B, T, 3, h, w), labels, and each pass's mixing weights -> {name: loss}."""
        model = self.model
        classes_MD = model.finetune_classes
        scale = model.logit_scale.exp()
        losses = {}
        e_BTD = model.frame_features(model.normalise(frames))                     # Eq. 1

        # First pass: the experts that were drawn, one per layer.
        t_BTD = model.temporal_features(e_BTD, expert_LE)                         # Eq. 2: h; Eq. 5
        cosine_BM = model.similarity(e_BTD, t_BTD, classes_MD)           # Eq. 2: z; Eq. 3, float32
        losses["L_TE"] = classification_loss(cosine_BM, labels_B, scale)          # Eq. 4
        if not self.second_pass:
            return losses

        # Second pass, on the same frame features: all experts, merged at the drawn temperatures.
        t_merged_BTD = model.temporal_features(e_BTD, merging_LE)                 # Eq. 2: h; Eq. 7
        merged_BM = model.similarity(e_BTD, t_merged_BTD, classes_MD)             # Eq. 2: z; Eq. 3
        losses["L_WMR"] = classification_loss(merged_BM, labels_B, scale)         # Eq. 8
        losses["L_MSE"] = mse_loss(e_BTD + t_merged_BTD, e_BTD)     # Eq. 9, per frame: see mse_loss
        return losses


def weighted_sum(losses: dict, config: Config):
    """L_ALL of Eq. 10: of a step's tensors, or of the log's means. A term that is missing is 0."""
    terms = [losses.get(name, 0.0) for name in ("L_TE", "L_WMR", "L_MSE")]
    return L_ALL(*terms, config.weight_merged, config.weight_mse)


def draw_weights(config: Config, step: int, m: int) -> tuple[Tensor, Tensor]:
    """Mixing weights (L, E) of both passes: one-hot (Eq. 5), and merging at drawn tau (Eq. 7).

    m: the micro-batch's number in the global batch, 0 to ranks x accumulate - 1. 8 ranks draw what
    one rank with --accumulate 8 draws, and a resumed run what it would have drawn.
    """
    generator = torch.Generator().manual_seed(seed_of(config.seed, step, m))
    expert_LE = draw_experts(config.layers, config.experts, generator, config.routing)
    merging_LE = draw_merging_weights(config.layers, config.experts, generator, config.beta)
    return expert_LE, merging_LE


def micro_batch(objective: nn.Module, batch: dict, config: Config, step: int, m: int,
                device: torch.device) -> dict[str, Tensor]:
    """Forward and backward of micro-batch m of a step: adds to .grad. -> the losses"""
    expert_LE, merging_LE = draw_weights(config, step, m)
    inputs = on_device(device, batch["frames"], batch["label"], expert_LE, merging_LE)
    torch.manual_seed(seed_of(config.seed, step, m, 1))          # for towers with dropout
    with autocast(device, dtype_for(device, config.precision)):
        losses = objective(*inputs)                                                 # Eq. 4, 8, 9
    (weighted_sum(losses, config) / config.accumulate).backward()                   # Eq. 10
    return losses


# --- 3. the optimiser and its schedule -----------------------------------------------------------
def build_optimizer(model: MoTE, config: Config) -> torch.optim.AdamW:
    """AdamW with two peak rates; decay on everything, no clipping. Freezes what has rate 0."""
    model.visual.requires_grad_(config.clip_lr > 0)
    model.logit_scale.requires_grad_(config.clip_lr > 0)
    model.temporal.requires_grad_(config.layers > 0 and config.lr > 0)

    clip = [*model.visual.parameters(), model.logit_scale]
    parts = (("clip", clip, config.clip_lr), ("temporal", model.temporal.parameters(), config.lr))
    groups = []
    for name, parameters, peak in parts:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if trained:
            groups.append({"params": trained, "name": name, "peak": peak})
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8,
                             weight_decay=config.weight_decay, fused=True)


def learning_rate(epoch: float, peak: float, epochs: float, warmup: float) -> float:
    """Linear from 0 over `warmup` epochs, then half a cosine to 0 at `epochs` (Table 6)."""
    if epoch < warmup:
        return peak * epoch / warmup
    return peak * 0.5 * (1 + cos(pi * (epoch - warmup) / (epochs - warmup)))


def set_learning_rates(optimizer: torch.optim.Optimizer, epoch: float, config: Config) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(epoch, group["peak"], config.epochs, config.warmup)


# --- 4. what a run is made of --------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """What `set_up` puts together and the loop takes."""
    ranks: Ranks
    begin: run_folder.Start                                      # its folder; what it goes on from
    videos: list[tuple[str, int]]                                # (path, label)
    batches: MicroBatches                                        # which clips each step takes
    stream: Iterator[dict]                                       # those clips, decoded
    model: MoTE
    optimizer: torch.optim.Optimizer
    benchmark: Benchmark                                         # the datasets to test on
    about: dict                                                  # what a checkpoint says of it


def set_up(cfg: Config) -> Run:
    """Lists of videos -> CLIP -> model. What a user can get wrong is read first."""
    ranks = find_ranks(cfg.device, cfg.threads)
    begin = run_folder.find_start(cfg.out, cfg.resume, cfg.init, cfg.data)

    # Lists of (path, label), and which videos each step takes.
    train, tests = train_and_tests(cfg.data, comma_separated(cfg.zero_shot), cfg.data_root,
                                   cfg.train_list, cfg.val_list, cfg.class_names, cfg.split,
                                   write=ranks.first)
    drawn = few_shot(train.videos, cfg.shots, cfg.seed) if cfg.shots else train.videos
    videos = repeated(drawn, len(train.videos))                               # Appendix B
    batches = MicroBatches(len(videos), cfg.batch, cfg.epochs, cfg.seed, ranks.rank,
                           ranks.world_size, cfg.accumulate, begin.step)

    # CLIP, and what a checkpoint says of this run; a resumed checkpoint must say the same.
    clip, tokenizer = load_clip(cfg.backbone, cfg.pretrained, cfg.as_tag, cfg.tokenizer)
    checkpoint_activations(clip.visual, cfg.checkpoint_activations)
    clip = clip.to(ranks.device)
    templates = list(read_templates(cfg.templates))
    about = run_folder.describe_run(asdict(cfg), clip, templates, train, drawn, tests[cfg.data])
    run_folder.check_start(begin, about, batches.stop)

    # From here on ranks wait for one another. Class embeddings of every dataset (Eq. 1).
    start(ranks)
    begin = run_folder.agree_on_start(begin)
    embeddings = embed_datasets(clip, tokenizer, tests, templates, ranks)

    # The model. CLIP as it is, the table's first row, is tested before --init or --resume loads.
    torch.manual_seed(cfg.seed)
    temporal = TemporalTransformer(embeddings[cfg.data].shape[1], cfg.layers, cfg.experts)
    model = MoTE(clip.visual, temporal, embeddings[cfg.data], clip.logit_scale,
                 clip.pixels).to(ranks.device)
    optimizer = build_optimizer(model, cfg)
    workers = count_workers(cfg.workers, ranks.device, batches.micro, cfg.frames, model.image_size)
    conditions = Conditions(templates, cfg.frames, model.image_size, model.pixels, workers,
                            cfg.eval_precision, cfg.final_precision, cfg.keep_best)
    board = Board(cfg.tensorboard, begin.out, begin.step)
    benchmark = Benchmark(tests, embeddings, conditions, ranks, begin.out, board)
    watch = Watch(videos, workers, begin.out / "skipped.txt")
    clips = TrainingClips(videos, cfg.frames, model.image_size, cfg.seed, cfg.flip, cfg.min_area,
                          watch, cfg.gray)
    stream = watched(clips, batches, watch, workers, ranks.device)
    weights = run_folder.weights_to_start_from(model, begin)
    about["untrained"] = benchmark.untrained(model, begin.resumed)
    run_folder.load_start(model, optimizer, weights, begin)

    run_folder.open_run(ranks, begin, drawn, tests[cfg.data].videos, train.classes, asdict(cfg))
    ranks.say(header(ranks, differences(cfg, RECIPES), about, optimizer, train, len(drawn), batches,
                     begin.out))
    return Run(ranks, begin, videos, batches, stream, model, optimizer, benchmark, about)


# --- 5. the loop ---------------------------------------------------------------------------------
def run(cfg: Config) -> dict:
    """Train, test and save; then the table. -> its rows: {model: {dataset: top-1}}"""
    parts = set_up(cfg)
    ranks, model, optimizer, out = parts.ranks, parts.model, parts.optimizer, parts.begin.out
    steps_per_epoch, total_steps = parts.batches.steps_per_epoch, parts.batches.stop
    objective = data_parallel(Objective(model, cfg.second_pass), ranks, cfg.compile)
    guard = Guard(ranks, model.visual, parts.videos, out, parts.begin.resumed)
    meter = Meter(ranks, parts.begin.resumed)
    log = Log(ranks, out, parts.batches, optimizer, parts.benchmark, cfg.eval_every)

    for step in log.bar(range(parts.batches.start, total_steps + 1)):
        # Test what `step` steps have given, the experts merged (Eq. 6). The last turn only tests.
        if is_due(step, cfg.eval_every * steps_per_epoch) or step == total_steps:
            parts.benchmark.test(model.merged(), step, step // steps_per_epoch, meter.means,
                                 last=step == total_steps)
            meter.restart()
        if step == total_steps:
            break

        # Accumulate the gradients of this rank's micro-batches.
        model.train()                                # again: a test calls eval() on the same tower
        model.visual.train(cfg.clip_lr > 0)          # a frozen tower's batch norms stay as they are
        set_learning_rates(optimizer, step / steps_per_epoch, cfg)
        guard.before_step()
        for i in range(cfg.accumulate):
            batch = meter.wait_for(parts.stream)
            m = i * ranks.world_size + ranks.rank                # as MicroBatches deals them out
            with sync_only_on_the_last(objective, i == cfg.accumulate - 1):
                losses = micro_batch(objective, batch, cfg, step, m, ranks.device)
            guard.saw(batch, losses)

        # Step, unless a rank has seen a loss or a gradient that is not finite.
        done = step + 1
        if guard.step_is_sound(done, model.parameters()):
            optimizer.step()
            meter.add(guard.losses, guard.clips)
        optimizer.zero_grad()

        # Log and save; then leave, if a signal or too much trouble asks for it.
        epoch_ends = is_due(done, steps_per_epoch)
        log_is_due = epoch_ends or is_due(done, cfg.log_every)
        save_is_due = epoch_ends or is_due(done, cfg.save_every) or guard.run_must_end
        if log_is_due:
            means, speed = meter.read()
            log.add(done, weighted_sum(means, cfg), means, speed)
        if log_is_due or save_is_due:
            guard.report_bad_videos()
        if save_is_due:
            run_folder.save(ranks, out, cfg.keep, done, model, optimizer, meter, guard, parts.about)
        guard.end_if_it_must(done)

    results = parts.benchmark.final(model.merged())
    return run_folder.finish(ranks, out, parts.about["untrained"], results)


def main(argv: list[str] | None = None) -> dict:
    """What `python train.py` does: a mistake is one line and exit status 2."""
    with one_line_errors("train.py"):
        return run(parse_config(argv))


if __name__ == "__main__":
    main()
