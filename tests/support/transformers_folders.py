"""Folders as people have them from transformers: tiny models with random weights, their preprocessors and tokenizers.

The files are laid as the published ones are (openai/clip-vit-base-patch32, google/siglip-base-patch16-224 and
google/siglip2-base-patch16-224): the same names, the same fields, odd ones included.
"""
import io
import json

import torch

SENTENCES = ["a photo of a person doing archery.", "a video of juggling balls", "brushing teeth, slowly",
             "playing the guitar", "apply eye make up", "Don't stop! A Red STAR; moving left"]
LENGTH = 16                                      # tokens of a sentence
SIDE = 32                                        # pixels of a frame
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": LENGTH}
VISION = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
          "image_size": SIDE, "patch_size": 8}
CLIP_PIXELS = {"crop_size": {"height": SIDE, "width": SIDE}, "do_center_crop": True, "do_convert_rgb": True,
               "do_normalize": True, "do_rescale": True, "do_resize": True,
               "image_processor_type": "CLIPImageProcessor",
               "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
               "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": SIDE}}
SIGLIP_PIXELS = {"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True,
                 "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
                 "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor", "resample": 2,
                 "rescale_factor": 0.00392156862745098, "size": {"height": SIDE, "width": SIDE}}


def save_json(folder, **files):
    """name -> content; a name stands without its .json."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def save_model(model, folder, **sharding):
    """As transformers saves it. Random weights are spread, or all features would be alike; the library's are small."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder, **sharding)
    return model.eval()


def clip_folder(folder, end=49407, **sharding):
    """A CLIPModel, of CLIP's own words, with its tokenizer -> the model. end: eos_token_id; before 2023 it was 2."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    config = CLIPConfig(text_config={**TEXT, "eos_token_id": end}, vision_config=VISION, projection_dim=24)
    model = save_model(CLIPModel(config), folder, **sharding)
    save_json(folder, preprocessor_config=CLIP_PIXELS,
              tokenizer_config={"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": LENGTH})
    clip_words(folder)
    return model


def clip_words(folder):
    """vocab.json and merges.txt of OpenAI's, from open_clip's copy."""
    from open_clip.tokenizer import SimpleTokenizer

    words = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    save_json(folder, vocab={names.get(token, token): number for token, number in words.encoder.items()})
    merges = sorted(words.bpe_ranks, key=words.bpe_ranks.get)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))


def siglip_folder(folder, words=None, **sharding):
    """A SiglipModel with its tokenizer -> the model. words: how that is made, sentencepieces or gemmas."""
    from transformers import SiglipConfig, SiglipModel

    count = (words or sentencepieces)(folder)
    torch.manual_seed(2)
    # Google's config.json leaves the ids of special tokens to the library, whose defaults are CLIP's.
    text = {**TEXT, "vocab_size": count, "projection_size": VISION["hidden_size"]}
    model = save_model(SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)), folder, **sharding)
    save_json(folder, preprocessor_config=SIGLIP_PIXELS)
    return model


def sentencepieces(folder):
    """The tokenizer of SigLIP: spiece.model -> the number of its tokens. It pads with the end of text."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in SENTENCES] * 20), model_writer=model, vocab_size=90, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2)
    (folder / "spiece.model").write_bytes(model.getvalue())
    save_json(folder, tokenizer_config={
        "tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_input_names": ["input_ids"],
        "model_max_length": LENGTH, "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"})
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()


def gemmas(folder):
    """The tokenizer of SigLIP2: tokenizer.json -> the number of its tokens.

    It knows capitals, but SigLIP2 was never shown any.
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
    from tokenizers.models import BPE

    words = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    words.normalizer = normalizers.Replace(" ", "▁")
    words.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    words.train_from_iterator(SENTENCES * 20, trainer)
    words.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    words.post_processor = processors.TemplateProcessing(single="$A:0 <eos>:0", pair="$A:0 <eos>:0 $B:1 <eos>:1",
                                                         special_tokens=[("<eos>", 1)])
    words.save(str(folder / "tokenizer.json"))
    save_json(folder, tokenizer_config={
        "tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True, "do_lower_case": True,
        "padding_side": "right", "model_input_names": ["input_ids"], "pad_token": "<pad>", "eos_token": "<eos>",
        "bos_token": "<bos>", "unk_token": "<unk>", "mask_token": "<mask>", "model_max_length": 10**30})
    return words.get_vocab_size()


def read(folder):
    """Our description of such a folder."""
    from mote.files.towers.of_transformers import read_transformers

    return read_transformers(folder, f"local-dir:{folder}", "the folder's own")
