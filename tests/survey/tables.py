"""
The rows of results/towers.jsonl as the tables of docs/towers.md: families, and pixels.
"""
import re

from tools.bench.rows import installed

# Family -> which names belong to it, as a pattern for the name's beginning.
FAMILIES = {
    "ViT": r"ViT-(?!.*(SigLIP|CLIPA|worldwide))",
    "ResNet": r"RN",
    "ConvNeXt": r"convnext",
    "other towers of timm": r"swin|vit_",
    "CLIPA": r"ViT-.*CLIPA",
    "EVA-CLIP": r"EVA",
    "ViTamin": r"ViTamin",
    "MobileCLIP": r"MobileCLIP",
    "PE-Core": r"PE-Core",
    "SigLIP": r"ViT-.*SigLIP(?!2)",
    "SigLIP2": r"ViT-.*SigLIP2",
    "MetaCLIP 2": r"ViT-.*worldwide",
    "RoBERTa": r"(xlm-)?roberta",
    "mT5": r"mt5",
    "NLLB": r"nllb",
    "CoCa": r"coca",
}


def family_of(name: str) -> str:
    """Raises ValueError for a name of no family, or of two."""
    found = [family for family, pattern in FAMILIES.items() if re.match(pattern, name)]
    if len(found) != 1:
        raise ValueError(f"{name} is of {len(found)} families: see FAMILIES")
    return found[0]


def newest(rows: list[dict]) -> list[dict]:
    """Later lines of the file replace earlier ones: a model that was run again counts once."""
    return list({row["name"]: row for row in rows}.values())


def markdown(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, *lines]
    text = ["| " + " | ".join(row) + " |" for row in rows]
    text.insert(1, "|---" * len(header) + "|")
    return "\n".join(text)


# --- families -------------------------------------------------------------------------------------
def families(rows: list[dict]) -> str:
    """A line for each family; then what was run, and with what."""
    rows = newest(rows)
    lines = []
    for family in FAMILIES:
        members = [row for row in rows if family_of(row["name"]) == family]
        if members:
            lines.append(family_line(family, members))
    header = ["family", "names", "visual tower, million parameters", "text tower", "needs `towers`",
              "activation checkpointing", "run", "off by"]

    failed = [row["name"] for row in rows if row["failed"]]
    seconds = sum(row["seconds"] for row in rows)
    where = sorted({f"{row['machine']}, {row['date']}, {installed(row['versions'])}"
                    for row in rows})
    return "\n".join([
        markdown(header, lines), "",
        f"{len(rows)} names, {len(failed)} failed{of_these(failed)}; {seconds:.0f} s in all.",
        *[f"Run on {one}." for one in where]])


def of_these(failed: list[str]) -> str:
    return f" ({', '.join(failed)})" if failed else ""


def family_line(family: str, members: list[dict]) -> list[str]:
    """One line of the table. members: the rows of a family."""
    good = [row for row in members if not row["failed"]]
    off = max((max(row["features_off"], row["classes_off"]) for row in good), default=0.0)
    checkpointing = {row["checkpointing"] for row in good}
    needs = {bool(row["tokenizer"] or row["text"]) for row in members}
    return [family, some({row["name"] for row in members}), towers(members),
            texts(members), either(needs), either(checkpointing),
            f"{len(good)} of {len(members)}", f"{off:.0e}" if off else "0"]


def some(names: set[str]) -> str:
    """The shortest of some names, and how many there are besides."""
    shortest = min(names, key=lambda name: (len(name), name))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"`{shortest}`{more}"


def either(answers: set[bool]) -> str:
    if len(answers) > 1:
        return "some"
    return "yes" if True in answers else "no"


def towers(members: list[dict]) -> str:
    """The classes of visual towers, as open_clip and timm call them, and their sizes."""
    classes = ", ".join(sorted({row["visual"] for row in members}))
    sizes = sorted({round(row["visual_parameters"] / 1e6) for row in members})
    return f"{classes}, {sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{classes}, {sizes[0]}"


def texts(members: list[dict]) -> str:
    """Text towers that are transformers', then whose tokenizers."""
    theirs = {row["text"] for row in members} - {""}
    words = {row["tokenizer"] for row in members} - {""}
    parts = []
    if theirs:
        parts.append(f"transformers', words of {some(words)}")
    elif words:
        parts.append(f"open_clip's, words of {some(words)}")
    if any(not row["text"] and not row["tokenizer"] for row in members):
        parts.append("open_clip's, CLIP's words")
    return "; ".join(parts)


# --- pixels ---------------------------------------------------------------------------------------
OPENAI = ("0.4815 0.4578 0.4082", "0.2686 0.2613 0.2758", "short side", "bicubic")


def pixels(rows: list[dict]) -> str:
    """How frames are made, a line for each way; then the names of which a file says too little."""
    rows = newest(rows)
    names = [row["name"] for row in rows]
    disagree = [row["name"] for row in rows if len(row["pixels"]) > 1]
    without = [row["name"] for row in rows if not row["pixels"]]

    known: dict[tuple, list[str]] = {OPENAI: []}
    some_tags: dict[tuple, list[str]] = {OPENAI: []}
    for row in rows:
        for way in row["pixels"]:
            cells = words_of(way)
            if row["name"] in disagree:
                tags = ", ".join(way["tags"])
                some_tags.setdefault(cells, []).append(f"`{row['name']}` with {tags}")
            else:
                known.setdefault(cells, []).append(row["name"])

    lines = [[*OPENAI, "all other names and tags"]]
    for way in dict.fromkeys([*known, *some_tags]):
        if way != OPENAI:
            whole = in_words(known.get(way, []), names)
            lines.append([*way, ", ".join(filter(None, [whole, *some_tags.get(way, [])]))])
    return "\n".join([
        markdown(["mean", "std", "resized", "interpolation", "names"], lines), "",
        f"Their tags disagree, so that a file needs `--as-tag TAG`: {in_words(disagree, names)}.",
        "",
        f"They have no tags, so that a file needs `--as-tag NAME/TAG`: {in_words(without, names)}."
    ])


def words_of(way: dict) -> tuple[str, str, str, str]:
    """One way to make frames, as cells of a table."""
    mean, std = (" ".join(f"{number:.4g}" for number in way[name]) for name in ("mean", "std"))
    mode = {"shortest": "short side", "squash": "squashed"}[way["resize_mode"]]
    return mean, std, mode, way["interpolation"]


def in_words(members: list[str], names: list[str]) -> str:
    """Some of all names. A family of which all are there stands by its own name."""
    words = []
    for family in FAMILIES:
        here = [name for name in members if family_of(name) == family]
        of_all = [name for name in names if family_of(name) == family]
        if here and len(here) == len(of_all):
            words.append(f"all of {family}")
        else:
            words += [f"`{name}`" for name in here]
    return ", ".join(words)
