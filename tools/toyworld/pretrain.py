"""
Train toyworld's tiny CLIP (mote/toyworld/toyworld.json) contrastively on generated stills with captions -> mote/toyworld/toyworld.pt.

    python tools/toyworld/pretrain.py                              # what made the shipped file; progress and time below
    python tools/toyworld/pretrain.py --steps 20 --out /tmp/x.pt   # a try

Half the stills are plain ("red star"), half carry a motion trail, the fading past of the object ("star moving left"),
so that the text tower knows the motion words although no frame of a video shows one. Every caption is put in one of the
paper's 28 templates. The file holds half-precision weights and only the token rows in use: under 2 MB.
"""
import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))
from mote import toyworld  # noqa: E402
from mote.clip_backbone import TEMPLATES, Tokenizer, build_clip, clip_config, normalise  # noqa: E402


def stills(n: int, size: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
    """n pictures (n, 3, size, size), uint8, odd ones with a trail, and captions. Grouped by shape to draw fast."""
    def draw(options):
        return [options[i] for i in torch.randint(len(options), (n,), generator=generator)]
    colours, motions = draw(list(toyworld.COLOURS)), draw(list(toyworld.MOTIONS))
    shapes, templates = draw(toyworld.SHAPES), draw(TEMPLATES)
    pictures = torch.empty(n, 3, size, size)
    captions = []
    fade = torch.linspace(0.25, 1, 6) ** 2                         # the past fades, the present is clearest
    for shape in toyworld.SHAPES:
        for changes in ("x", "y", "size", "angle", "light"):
            rows = [i for i in range(n) if shapes[i] == shape and toyworld.MOTIONS[motions[i]][0] == changes]
            if rows:
                rgb = torch.tensor([toyworld.COLOURS[colours[i]] for i in rows])
                poses = toyworld.poses(changes, len(rows), 6, generator)
                clips = toyworld.render(shape, rgb, poses, size, generator).float()
                for i, clip in zip(rows, clips):
                    clip = clip.flip(0) if toyworld.MOTIONS[motions[i]][1] else clip
                    pictures[i] = torch.einsum("t,tchw->chw", fade / fade.sum(), clip) if i % 2 else clip[i % 6]
    for i in range(n):
        trail = f"{shapes[i]} {motions[i]}"
        plain = f"{colours[i]} {shapes[i]}"
        captions.append(templates[i].format((trail if i % 4 == 1 else f"{colours[i]} {trail}") if i % 2 else plain))
    return pictures.round().to(torch.uint8), captions


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--batch", type=int, default=192, help="stills per step")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak, after 100 steps of warm-up, then a half cosine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(Path(toyworld.__file__).with_name("toyworld.pt")))
    options = parser.parse_args(argv)

    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    config = clip_config("toyworld")
    clip, tokenizer = build_clip(config), Tokenizer("toyworld", config)
    size = config["vision_cfg"]["image_size"]
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    optimizer = torch.optim.AdamW(clip.parameters(), lr=options.lr, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 100) * 0.5 * (
        1 + torch.cos(torch.tensor(torch.pi * s / options.steps)).item()))
    start = time.time()
    for step in range(options.steps):
        pictures, captions = stills(options.batch, size, generator)
        texts = list(dict.fromkeys(captions))
        image = F.normalize(clip.encode_image(normalise(pictures, mean, std)), dim=-1)
        text = F.normalize(clip.encode_text(tokenizer(texts)), dim=-1)
        logits = clip.logit_scale.clamp(max=4.6052).exp() * image @ text.T       # CLIP's own bound: a scale of 100
        target = torch.tensor([texts.index(c) for c in captions])
        rows = F.one_hot(target, len(texts)).T.float()                          # a caption may belong to several stills
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, rows / rows.sum(1, keepdim=True))) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == options.steps - 1:
            print(f"step {step:5d}  loss {loss.item():.3f}  scale {clip.logit_scale.exp().item():.1f}  "
                  f"{time.time() - start:.0f} s", flush=True)
    clip.logit_scale.data.clamp_(max=4.6052)

    words = [*(template.format("") for template in TEMPLATES), *toyworld.COLOURS, *toyworld.MOTIONS, *toyworld.SHAPES]
    token_ids = tokenizer(words).unique()
    state = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    state["token_embedding.weight"] = state["token_embedding.weight"][token_ids].clone()
    torch.save({**state, "token_ids": token_ids}, options.out)
    print(f"{options.out}: {Path(options.out).stat().st_size / 1e6:.2f} MB, {len(token_ids)} token rows")


if __name__ == "__main__":
    main()
