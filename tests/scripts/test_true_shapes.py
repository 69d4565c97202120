"""
Checkpoints of the paper's true sizes, in the authors' format with random weights, take the whole path of real ones.

ViT-B/16 (D = 512, 4 layers, 4 experts, 400 classes) is written to disk, loaded, run, evaluated by eval.py and taken to
our format and back; ViT-L/14 has its shapes alone. Checked against the authors' computation written out below from
their names, without open_clip or this project, and against the paper's numbers of parameters. Slow: a minute of one
core, 4 GB.
"""
import re

import pytest
import torch
import torch.nn.functional as F
from support.tensors import randn
from torch.testing import assert_close

import eval as evaluation
import mote
from mote.clip_backbone import build_clip, clip_config, normalise
from mote.files.towers.pixels import OPENAI_MEAN, OPENAI_STD
from mote.model import MoTE
from mote.runtime.authors_format import from_authors, to_authors
from mote.runtime.checkpoints import build_model

pytestmark = pytest.mark.slow
B16 = {"width": 768, "patch": 16, "depth": 12, "dim": 512, "layers": 4}
L14 = {"width": 1024, "patch": 14, "depth": 24, "dim": 768, "layers": 6}


def block_shapes(block: str, dim: int) -> dict[str, tuple]:
    """A transformer block but for its feed-forward part."""
    return {f"{block}.attn.in_proj_weight": (3 * dim, dim), f"{block}.attn.in_proj_bias": (3 * dim,),
            f"{block}.attn.out_proj.weight": (dim, dim), f"{block}.attn.out_proj.bias": (dim,),
            **{f"{block}.{norm}.{kind}": (dim,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}}


def official_shapes(width, patch, depth, dim, layers, experts=4, classes=400) -> tuple[dict, dict]:
    """Names and shapes of model_state_dict and fusion_model_state_dict, for pictures of 224 x 224."""
    visual = {"logit_scale": (), "visual.class_embedding": (width,), "visual.proj": (width, dim),
              "visual.positional_embedding": ((224 // patch) ** 2 + 1, width),
              "visual.conv1.weight": (width, 3, patch, patch),
              **{f"visual.{norm}.{kind}": (width,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")}}
    for i in range(depth):
        block = f"visual.transformer.resblocks.{i}"
        visual |= {**block_shapes(block, width),
                   f"{block}.mlp.c_fc.weight": (4 * width, width), f"{block}.mlp.c_fc.bias": (4 * width,),
                   f"{block}.mlp.c_proj.weight": (width, 4 * width), f"{block}.mlp.c_proj.bias": (width,)}
    head = {"spe_cls_feature": (classes, dim), "frame_position_embeddings.weight": (77, dim)}
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        head |= {**block_shapes(block, dim), f"{block}.mlp.mote_fusion_weight": (experts,)}
        for j in range(experts):
            head |= {f"{block}.mlp.fc_up.{j}.weight": (4 * dim, dim), f"{block}.mlp.fc_up.{j}.bias": (4 * dim,),
                     f"{block}.mlp.fc_dn.{j}.weight": (dim, 4 * dim), f"{block}.mlp.fc_dn.{j}.bias": (dim,)}
    return visual, head


def drawn(shapes: dict[str, tuple], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random weights of a trained model's size: matrices to keep lengths, norms about 1, unit class embeddings."""
    state = {}
    for name, shape in shapes.items():
        scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
        state[name] = torch.randn(shape, generator=generator) * (0.02 if "conv1" in name else scale)
        if ".ln_" in name and name.endswith("weight"):
            state[name] += 1
        elif name == "logit_scale":
            state[name] += 4.6
        elif name.endswith("mote_fusion_weight"):
            state[name].zero_()
        elif name == "spe_cls_feature":
            state[name] = F.normalize(state[name], dim=-1)
    return state


def official(sizes: dict, make) -> dict:
    visual, head = (make(shapes) for shapes in official_shapes(**sizes))
    return {"epoch": 29, "model_state_dict": visual, "fusion_model_state_dict": head, "optimizer_state_dict": {}}


# --- the authors' computation, from their names --------------------------------------------------------------------
def attention(x, state, block, heads):
    q, k, v = F.linear(x, state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"]).chunk(3, dim=-1)
    parts = [torch.softmax(a @ b.mT / a.shape[-1] ** 0.5, dim=-1) @ c
             for a, b, c in zip(*(t.chunk(heads, dim=-1) for t in (q, k, v)))]
    return F.linear(torch.cat(parts, dim=-1), state[f"{block}.attn.out_proj.weight"],
                    state[f"{block}.attn.out_proj.bias"])


def norm(x, state, name, eps):
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def transformer(x, state, prefix, depth, heads, eps, feed_forward):
    for i in range(depth):
        block = f"{prefix}transformer.resblocks.{i}"
        x = x + attention(norm(x, state, f"{block}.ln_1", eps), state, block, heads)
        up_weight, up_bias, down_weight, down_bias = feed_forward(f"{block}.mlp")
        hidden = F.linear(norm(x, state, f"{block}.ln_2", eps), up_weight, up_bias)
        x = x + F.linear(hidden * torch.sigmoid(1.702 * hidden), down_weight, down_bias)
    return x


@torch.no_grad()
def reference(checkpoint, frames, sizes):
    """Normalised frames (T, 3, 224, 224) of one clip -> frame and temporal features, (T, D) each."""
    visual, head = checkpoint["model_state_dict"], checkpoint["fusion_model_state_dict"]
    x = F.conv2d(frames, visual["visual.conv1.weight"], stride=sizes["patch"]).flatten(2).mT
    x = torch.cat([visual["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = norm(x + visual["visual.positional_embedding"], visual, "visual.ln_pre", 1e-5)
    x = transformer(x, visual, "visual.", sizes["depth"], sizes["width"] // 64, 1e-5, lambda mlp: [
        visual[f"{mlp}.{part}"] for part in ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias")])
    e = norm(x[:, 0], visual, "visual.ln_post", 1e-5) @ visual["visual.proj"]
    t = transformer((e + head["frame_position_embeddings.weight"][:len(e)])[None], head, "", sizes["layers"],
                    sizes["dim"] // 64, 1e-12, lambda mlp: [
        sum(head[f"{mlp}.{part[:5]}.{j}.{part[6:]}"] for j in range(4)) / 4
        for part in ("fc_up.weight", "fc_up.bias", "fc_dn.weight", "fc_dn.bias")])[0]
    return e, t


def direction(e, t):
    """z of Eq. 2, of unit length: one clip's, or those of a batch."""
    return F.normalize((e + t).mean(dim=-2), dim=-1)


# --- ViT-B/16 ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def b16(tmp_path_factory):
    """The authors' checkpoint of ViT-B/16, and the file it is in: half a gigabyte, removed at the end."""
    generator = torch.Generator().manual_seed(0)
    checkpoint = official(B16, lambda shapes: drawn(shapes, generator))
    file = tmp_path_factory.mktemp("b16") / "MoTE_B16.pt"
    torch.save(checkpoint, file)
    yield checkpoint, file
    file.unlink()


def millions(parameters) -> float:
    return round(sum(p.numel() for p in parameters) / 1e6, 3)


@torch.no_grad()
def test_the_authors_vit_b16_computes_what_their_code_does(b16, monkeypatch):
    """Cosines in float32, 16 blocks deep, added up in another order: 1e-5. They differ by 0.1 from class to class."""
    checkpoint, file = b16
    frames = randn(1, 1, 8, 3, 224, 224).float()
    model, kept = mote.load_model(file), mote.load_model(file, keep_experts=True)
    classes = checkpoint["fusion_model_state_dict"]["spe_cls_feature"]
    right = direction(*reference(checkpoint, frames[0], B16)) @ classes.T
    assert right.shape == (400,) and right.std() > 0.02
    e_BTD = model.frame_features(frames)
    assert model.temporal_features(e_BTD).norm() > 0.1 * e_BTD.norm()        # the head has its say
    for one in (model, kept):
        monkeypatch.setattr(one, "frame_features", lambda _: e_BTD)          # the dear part, once
        assert_close(one(frames, one.finetune_classes)[0], right, rtol=0, atol=1e-5)
    assert (model.image_size, model.temporal.heads, model.temporal.positions.shape) == (224, 8, (77, 512))
    # 86.2 and 12.6 in the paper (Table 4); 4 layers of 3 more experts: 12 (2 x 4 x 512 x 512 + 5 x 512) = 25.197 more
    assert millions(model.visual.parameters()) == 86.193
    assert (millions(model.temporal.parameters()), millions(kept.temporal.parameters())) == (12.649, 37.846)


def test_vit_b16_goes_to_our_format_and_back_bit_for_bit(b16):
    checkpoint, _ = b16
    ours = from_authors(checkpoint)
    assert (ours["clip"]["backbone"], ours["clip"]["pretrained"]) == ("ViT-B-16-quickgelu", "openai")
    theirs = to_authors(ours)
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert_close(theirs[part], checkpoint[part], rtol=0, atol=0)
    assert_close(from_authors(theirs)["model"], ours["model"], rtol=0, atol=0)


def recorded(name, monkeypatch) -> list[tuple]:
    """The arguments and result of every call of one of MoTE's methods from now on."""
    calls, method = [], getattr(MoTE, name)

    def record(self, *args):
        calls.append((*args, method(self, *args)))
        return calls[-1][-1]
    monkeypatch.setattr(MoTE, name, record)
    return calls


@torch.no_grad()
def test_eval_takes_the_authors_vit_b16_with_openais_kind_of_weights(b16, world, tmp_path, monkeypatch, capsys):
    """Three videos, the text tower from a file in half precision, 0.99 of the checkpoint and 0.01 of that file."""
    checkpoint, file = b16
    torch.manual_seed(1)
    clip = build_clip(clip_config("ViT-B-16-quickgelu"))
    weights = {name: tensor.half() for name, tensor in clip.state_dict().items()}
    torch.save({**weights, "vocab_size": torch.tensor(49408)}, tmp_path / "clip.pt")
    names = ["circle growing", "star moving left", "square fading"]
    (tmp_path / "names.csv").write_text("id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(names)))
    videos = sorted((world / "toyworld" / "videos").glob("val_*.mp4"))[:3]
    (tmp_path / "list.txt").write_text("".join(f"{video} {i}\n" for i, video in enumerate(videos)))
    (tmp_path / "templates.txt").write_text("a video of {}.\n")
    seen = {name: recorded(name, monkeypatch) for name in ("normalise", "temporal_features", "modulation")}
    assert evaluation.main([
        "--checkpoint", str(file), "--backbone", "ViT-B-16-quickgelu", "--pretrained", str(tmp_path / "clip.pt"),
        "--data-root", str(world / "toyworld"), "--list", str(tmp_path / "list.txt"), "--batch", "2", "--threads", "1",
        "--class-names", str(tmp_path / "names.csv"), "--templates", str(tmp_path / "templates.txt"), "--workers", "0",
        "--device", "cpu", "--clip-weight", "0.99"])
    (tmp_path / "clip.pt").unlink()
    printed = capsys.readouterr().out
    assert "visual tower: 0.99 x fine-tuned + 0.01 x original CLIP" in printed and "toyworld: 3 videos" in printed
    mixed = {name: 0.99 * tensor + 0.01 * weights[name].float()
             for name, tensor in checkpoint["model_state_dict"].items()}
    views, classes = seen["normalise"][0][0], seen["modulation"][0][1]
    assert views.shape == (2 * 8, 3, 224, 224) and views.dtype == torch.uint8 and classes.shape == (3, 512)
    frames = normalise(views[:8], torch.tensor(OPENAI_MEAN), torch.tensor(OPENAI_STD))
    right = direction(*reference({**checkpoint, "model_state_dict": mixed}, frames, B16))
    found = torch.cat([direction(e_BTD, t_BTD) for e_BTD, t_BTD in seen["temporal_features"]])
    assert_close(found[0], right, rtol=0, atol=1e-5)
    top1 = ((found @ classes.T).argmax(dim=1) == torch.arange(3)).float().mean().item()
    shown = re.search(r"without modulation +top-1 +([\d.]+)", printed).group(1)
    assert float(shown) == pytest.approx(100 * top1, abs=0.01)


# --- ViT-L/14 ------------------------------------------------------------------------------------------------------
def test_the_authors_vit_l14_fits_and_has_the_papers_numbers_of_parameters():
    """Shapes without numbers. Paper: 42.6 M and 127.6 M in the head (Table 2c), 346.6 M with the tower (Table 4)."""
    def empty(shapes):
        return {name: torch.zeros(shape, device="cpu" if "fusion_weight" in name else "meta")
                for name, shape in shapes.items()}
    checkpoint = official(L14, empty)
    ours = from_authors(checkpoint)
    assert ours["clip"]["backbone"] == "ViT-L-14-quickgelu"
    with torch.device("meta"):
        kept, model = build_model(ours, keep_experts=True), build_model(ours)       # names and shapes agree, or it says
    assert (model.temporal.heads, len(model.temporal.blocks), kept.temporal.num_experts) == (12, 6, 4)
    assert (millions(model.temporal.parameters()), millions(kept.temporal.parameters())) == (42.586, 127.590)
    assert millions(model.visual.parameters()) == 303.966
    back = to_authors(ours)
    for part in ("model_state_dict", "fusion_model_state_dict"):
        assert {name: t.shape for name, t in back[part].items()} == {n: t.shape for n, t in checkpoint[part].items()}
