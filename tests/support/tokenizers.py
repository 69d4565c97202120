"""
Tiny tokenizers of every class that open_clip's descriptions and CLIPs of transformers name.

Each maker returns the files that such a repository has, by their names, with the pipeline that the real file has
(normal forms, splitting, special tokens and their order); only the vocabulary is a small one, trained on TEXT. Lay them
out with support/hub_cache.py, alone or with other files:

    def test_something(hub_cache):
        hub_cache("org/name", {**siglip(), "open_clip_config.json": b"...", "open_clip_model.safetensors": b"..."})

A test file that imports this is skipped where the packages of the extra `towers` are not installed.
"""
import functools
import io
import json

import pytest

tokenizers = pytest.importorskip("tokenizers")                   # of transformers
sentencepiece = pytest.importorskip("sentencepiece")
model_format = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")          # of protobuf too
pytest.importorskip("transformers")

AddedToken, Regex = tokenizers.AddedToken, tokenizers.Regex
models, normalizers, pre_tokenizers = tokenizers.models, tokenizers.normalizers, tokenizers.pre_tokenizers
processors, trainers = tokenizers.processors, tokenizers.trainers

TEXT = """
A photo of a person playing the violin. A video of two people dancing the tango in the street at night.
An example of a person doing archery, then walking the dog; 3 of 5 clips show a red star moving left, 10 times.
A demonstration of high-jump, long-jump & triple-jump: he runs, she jumps, they land (softly) on the sand.
"Brushing teeth", combing hair and applying eye make-up are three classes of UCF101 and of Kinetics-400.
Déjà vu: a naïve café owner in São Paulo makes crêpes; Füße, Ærø, Łódź, Ðorđe and coöperate have accents too.
""".strip().splitlines()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]                      # of RoBERTa and all that follow it, in this order


def as_json(**content) -> bytes:
    return json.dumps(content).encode()


def as_file(tokenizer: tokenizers.Tokenizer) -> bytes:
    return tokenizer.to_str().encode()


def framed(tokenizer: tokenizers.Tokenizer, frame: str) -> tokenizers.processors.PostProcessor:
    """'<s> $A </s>' -> what puts these tokens around a sentence."""
    tokens = [word for word in frame.split() if word != "$A"]
    return processors.TemplateProcessing(single=frame, special_tokens=[(t, tokenizer.token_to_id(t)) for t in tokens])


def special(*tokens: str) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


# --- of sentences alone ---------------------------------------------------------------------------
@functools.cache
def roberta() -> dict[str, bytes]:
    """BPE of bytes, as roberta-base."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(TEXT, trainer)
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    model = json.loads(made.to_str())["model"]
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    return {"config.json": as_json(model_type="roberta", pad_token_id=1), "tokenizer.json": as_file(made),
            "tokenizer_config.json": as_json(model_max_length=512), "merges.txt": f"#version: 0.2\n{merges}".encode(),
            "vocab.json": as_json(**model["vocab"])}


@functools.cache
def bert() -> dict[str, bytes]:
    """WordPiece without capitals and accents, as bert-base-uncased."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=300, special_tokens=words, show_progress=False))
    made.post_processor = framed(made, "[CLS] $A [SEP]")
    vocab = sorted(made.get_vocab(), key=made.token_to_id)
    return {"config.json": as_json(model_type="bert"), "tokenizer.json": as_file(made),
            "tokenizer_config.json": as_json(do_lower_case=True, model_max_length=512),
            "vocab.txt": "\n".join(vocab).encode()}


# --- of sentencepiece -----------------------------------------------------------------------------
@functools.cache
def sentences_in_pieces(kind: str, **ids: int) -> bytes:
    """A model file of sentencepiece, trained on TEXT. kind: unigram or bpe. ids: pad_id=0, ..., -1 for none."""
    file = io.BytesIO()
    size = {"unigram": 200, "bpe": 450}[kind]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=file, model_type=kind, vocab_size=size, hard_vocab_limit=False,
        character_coverage=1.0, num_threads=1, minloglevel=2, **ids)
    return file.getvalue()


def pieces(model: bytes) -> list[tuple[str, float]]:
    """The pieces of a model file, each with its score, in the order of their ids."""
    read = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [(read.id_to_piece(i), read.get_score(i)) for i in range(len(read))]


def normal_forms(model: bytes) -> tokenizers.normalizers.Normalizer:
    """How a model file brings characters to their normal form: a table in it."""
    read = model_format.ModelProto.FromString(model)
    return normalizers.Precompiled(read.normalizer_spec.precompiled_charsmap)


def unigram(model: bytes, vocab: list[tuple[str, float]], unknown: int, frame: str) -> tokenizers.Tokenizer:
    """What the files of T5 and XLM-RoBERTa hold."""
    made = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=unknown))
    made.normalizer = normal_forms(model)
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")])
    made.post_processor = framed(made, frame)
    return made


T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
T5_WORDS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def mt5() -> dict[str, bytes]:
    """google/mt5-base has no tokenizer.json: transformers makes it of the model file."""
    return {"config.json": as_json(model_type="mt5"), "spiece.model": sentences_in_pieces("unigram", **T5),
            "tokenizer_config.json": as_json(tokenizer_class="T5Tokenizer", extra_ids=0,
                                             additional_special_tokens=None, **T5_WORDS),
            "special_tokens_map.json": as_json(**T5_WORDS)}


@functools.cache
def siglip() -> dict[str, bytes]:
    """T5's, as in timm's repositories of SigLIP: no config.json, open_clip's stands in its place. It pads with </s>."""
    model = sentences_in_pieces("unigram", **T5)
    made = unigram(model, pieces(model), 2, "$A </s>")
    made.add_special_tokens(special("<pad>", "</s>", "<unk>"))
    words = {**T5_WORDS, "pad_token": "</s>"}
    config = as_json(tokenizer_class="T5Tokenizer", extra_ids=0, legacy=False, model_max_length=64, **words)
    return {"tokenizer.json": as_file(made), "tokenizer_config.json": config,
            "special_tokens_map.json": as_json(**words)}


@functools.cache
def xlm_roberta() -> dict[str, bytes]:
    """Of sentencepiece, with RoBERTa's special tokens before its pieces: ids are one more than in the model file."""
    model = sentences_in_pieces("unigram", pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
    vocab = [*((token, 0.0) for token in SPECIAL), *pieces(model)[3:], ("<mask>", 0.0)]
    made = unigram(model, vocab, 3, "<s> $A </s>")
    made.add_special_tokens([*special(*SPECIAL), AddedToken("<mask>", lstrip=True, special=True)])
    return {"config.json": as_json(model_type="xlm-roberta", pad_token_id=1), "sentencepiece.bpe.model": model,
            "tokenizer.json": as_file(made), "tokenizer_config.json": as_json(model_max_length=512)}


def xlm_v() -> dict[str, bytes]:
    """The same class, without a tokenizer.json."""
    files = {**xlm_roberta(), "tokenizer_config.json": as_json(tokenizer_class="XLMRobertaTokenizer")}
    del files["tokenizer.json"]
    return files


@functools.cache
def nllb() -> dict[str, bytes]:
    """BPE of sentencepiece, and a token for each language: that of English stands before a sentence."""
    model = sentences_in_pieces("bpe", pad_id=-1, unk_id=0, bos_id=1, eos_id=2)
    languages = ["deu_Latn", "eng_Latn", "fra_Latn"]
    made = sentencepiece_bpe([*SPECIAL, *(piece for piece, _ in pieces(model)[3:])], byte_fallback=False)
    made.normalizer = normalizers.Sequence([normal_forms(model), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.add_special_tokens([*special(*SPECIAL, *languages), AddedToken("<mask>", lstrip=True, special=True)])
    made.post_processor = framed(made, "eng_Latn $A </s>")
    config = as_json(tokenizer_class="NllbTokenizer", src_lang=None, tgt_lang=None, model_max_length=1024,
                     additional_special_tokens=languages)
    return {"config.json": as_json(model_type="m2m_100", tokenizer_class="NllbTokenizer"),
            "sentencepiece.bpe.model": model, "tokenizer.json": as_file(made), "tokenizer_config.json": config}


@functools.cache
def siglip2() -> dict[str, bytes]:
    """Gemma's: BPE that falls back to bytes, padded on the right, an <eos> at the end."""
    model = sentences_in_pieces("bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, byte_fallback=True)
    words = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    vocab = ["<pad>", "<eos>", "<bos>", "<unk>", *(piece for piece, _ in pieces(model)[4:])]
    made = sentencepiece_bpe(vocab, byte_fallback=True)
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.add_special_tokens(special(*words.values()))
    made.post_processor = framed(made, "$A <eos>")
    config = as_json(tokenizer_class="GemmaTokenizer", padding_side="right", add_bos_token=False, add_eos_token=True,
                     model_max_length=64, **words)
    return {"tokenizer.json": as_file(made), "tokenizer_config.json": config,
            "special_tokens_map.json": as_json(**words)}


def sentencepiece_bpe(vocab: list[str], byte_fallback: bool) -> tokenizers.Tokenizer:
    """Merges are all pairs of pieces whose union is a piece, in the order of the unions."""
    ids = {piece: i for i, piece in enumerate(vocab)}
    merges = [(piece[:cut], piece[cut:]) for piece in vocab for cut in range(1, len(piece))
              if piece[:cut] in ids and piece[cut:] in ids]
    return tokenizers.Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback))


# --- of models of transformers --------------------------------------------------------------------
@functools.cache
def clip() -> dict[str, bytes]:
    """CLIP's own BPE, whole, as in openai/clip-vit-base-patch32. It pads with the end of text."""
    from open_clip import SimpleTokenizer
    own = SimpleTokenizer()
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocab = {{"<start_of_text>": start, "<end_of_text>": end}.get(token, token): i for token, i in own.encoder.items()}
    made = tokenizers.Tokenizer(models.BPE(vocab, list(own.bpe_ranks), unk_token=end, end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "),
                                            normalizers.Lowercase()])
    words = Regex(r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(words, "removed", invert=True),
                                                  pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.add_special_tokens(special(start, end))
    made.post_processor = processors.RobertaProcessing((end, 49407), (start, 49406), add_prefix_space=False,
                                                       trim_offsets=False)
    config = as_json(tokenizer_class="CLIPTokenizer", bos_token=start, eos_token=end, unk_token=end, pad_token=end,
                     model_max_length=77)
    merges = "\n".join(" ".join(merge) for merge in own.bpe_ranks)
    return {"config.json": as_json(model_type="clip"), "tokenizer.json": as_file(made), "tokenizer_config.json": config,
            "merges.txt": f"#version: 0.2\n{merges}".encode(), "vocab.json": as_json(**vocab)}


def siglip_of_transformers() -> dict[str, bytes]:
    """SigLIP's own class, which reads the model file, as in google/siglip-base-patch16-224."""
    config = as_json(tokenizer_class="SiglipTokenizer", model_max_length=64, **{**T5_WORDS, "pad_token": "</s>"})
    return {**siglip(), "config.json": as_json(model_type="siglip"), "tokenizer_config.json": config,
            "spiece.model": sentences_in_pieces("unigram", **T5)}


# --- as open_clip's descriptions name them --------------------------------------------------------
def of(repository: str) -> dict[str, bytes]:
    """The files of a repository that open_clip's descriptions name. KeyError for one of no known family."""
    named = {"roberta-base": roberta, "bert-base-uncased": bert, "google/mt5-base": mt5, "google/mt5-xl": mt5,
             "xlm-roberta-base": xlm_roberta, "xlm-roberta-large": xlm_roberta, "facebook/xlm-v-base": xlm_v,
             "facebook/nllb-200-distilled-600M": nllb, "facebook/nllb-200-distilled-1.3B": nllb}
    if repository.startswith("timm/") and "SigLIP2" in repository:
        return siglip2()
    if repository.startswith("timm/") and "SigLIP" in repository:
        return siglip()
    return named[repository]()
