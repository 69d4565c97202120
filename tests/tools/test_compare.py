"""
tools/compare.py, on two files and on four: the numbers by hand and by the paper's tables, refusals, broken inputs.

Must be true: only results of one protocol are compared, unless asked; swapping A and B changes the sign and nothing
else; the rows of Table 4 come back to the printed digit; whatever a file holds, the answer is a table or one line and
status 2. On files as `eval.py --json` writes them, built here.
"""
import contextlib
import copy
import io
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import compare
from tools.comparing import paired_difference, trade_off
from tools.comparing.protocols import BEFORE

ROOT = Path(__file__).parents[2]
RIGHT, WRONG, FAILED = [0, 1, 2, 3, 4], [4, 3, 2, 1, 0], []                  # best classes where the label is 0


def rows(pattern: str, start: int = 0) -> list[dict]:
    """One video a letter, of class 0: r right, w wrong in top-1, x not decoded. Without modulation all are wrong."""
    best = {"r": RIGHT, "w": WRONG, "x": FAILED}
    return [{"video": f"walk/v_{i:03d}.avi", "label": 0, "plain": WRONG if c != "x" else FAILED, "modulated": best[c]}
            for i, c in enumerate(pattern, start)]


def result(splits: dict[str, list[dict]], data: str = "ucf101", top1=50.0, spread=1.0, **protocol) -> dict:
    """As eval.py --json writes it; keywords change the protocol of every split."""
    def score(top1):
        return {"top1": top1, "top5": 90.0, "top1_failures_wrong": top1, "top5_failures_wrong": 90.0}
    entries = []
    for name, per_video in splits.items():
        fixed = {"fingerprint": "1a2b3c4d", "data": data, "split": name, "videos": len(per_video),
                 "found": len(per_video), "list": "l" + name, "classes": 101, "class_names": "n", "templates": "t",
                 "frames": 8, "clips": 3, "crops": 1, "resize": 224, "neighbours": 5, "gamma": 0.05,
                 "precision": "fp32", "checkpoint": "0123456789abcdef", "text": "01234567",
                 "clip_weight": 1.0}
        failed = [row["video"] for row in per_video if not row["modulated"]]
        entries.append({"split": name, "protocol": {**fixed, **protocol}, "videos": len(per_video),
                        "decoded": len(per_video) - len(failed), "failed": failed, "plain": score(top1 - 10),
                        "modulated": score(top1), "per_video": per_video})
    return {"data": data, "checkpoint": "runs/demo", "plain": {**score(top1 - 10), "top1_std": spread, "top5_std": 0.1},
            "modulated": {**score(top1), "top1_std": spread, "top5_std": 0.1}, "splits": entries}


def write(folder, **results) -> list[str]:
    """name=result ... -> their files."""
    files = [Path(folder) / f"{name}.json" for name in results]
    for file, content in zip(files, results.values()):
        file.write_bytes(content if isinstance(content, bytes) else
                         (content if isinstance(content, str) else json.dumps(content)).encode())
    return [str(file) for file in files]


def run(*args) -> tuple:
    """(what main returned, what it printed); an exit must have status 2 and one line: then (None, that line)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return compare.main(list(args)), out.getvalue()
        except SystemExit as end:
            line = err.getvalue()
            assert end.code == 2 and line.startswith("tools/compare.py: error: ")
            assert len(line.splitlines()) == 1
            return None, line


@pytest.fixture
def versus(tmp_path):
    """versus(A, B, flags ...) -> the table and the output of compare.py on two results."""
    return lambda a, b, *flags: run(*write(tmp_path, a=a, b=b), "--samples", "200", *flags)


# --- compare: the numbers ------------------------------------------------------------------------------------------
def test_ten_videos_by_hand(versus):
    """A 8 of 10, B 5 of 10; 4 only A, 1 only B: a coin is as uneven as 4 to 1 in 2 (1 + 5) of 2^5 cases."""
    table, printed = versus(result({"1": rows("rrrrrrrrww")}), result({"1": rows("rrrrwwwwrw")}))
    row = table["1"]
    assert (row["n"], row["a"], row["b"], row["difference"]) == (10, 80, 50, 30)
    assert (row["only_a"], row["only_b"], row["p"]) == (4, 1, 0.375)
    assert row["low"] <= 30 <= row["high"] and len(table) == 1
    assert "80.00   50.00  +30.00" in printed and "0.3750" in printed


@pytest.mark.parametrize("only_a, only_b, p", [(0, 0, 1), (5, 0, 2 / 32), (1, 4, 12 / 32), (3, 3, 1),
                                               (10, 2, 2 * (1 + 12 + 66) / 4096)])
def test_mcnemar_by_hand(only_a, only_b, p):
    assert paired_difference.mcnemar(only_a, only_b) == p


@given(st.integers(0, 10).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_mcnemar_is_the_share_of_coin_throws_as_uneven(throws):
    n, heads = throws
    uneven = [abs(2 * sum(coins) - n) >= abs(2 * heads - n) for coins in itertools.product((0, 1), repeat=n)]
    assert paired_difference.mcnemar(heads, n - heads) == sum(uneven) / len(uneven)


def test_mcnemar_of_thousands_neither_overflows_nor_vanishes():
    assert 0 < paired_difference.mcnemar(300, 700) < 1e-30 and 0.02 < paired_difference.mcnemar(9850, 10170) < 0.03


def test_the_interval_is_the_normal_one_where_videos_are_many():
    """2,000 videos: mean +- 1.96 standard errors, to a tenth of its half-width."""
    wins = np.array([1] * 300 + [-1] * 200 + [0] * 1500)
    low, high = paired_difference.interval(wins, np.ones_like(wins), 4000, 0)
    half = 196 * wins.std() / len(wins) ** 0.5
    assert abs(low - (5 - half)) < half / 10 and abs(high - (5 + half)) < half / 10


def test_the_interval_is_that_of_its_seed(versus):
    a, b = result({"": rows("rrrwrwrwrrwr" * 9)}), result({"": rows("rwrwwwrrwrww" * 9)})
    first, again, other = (versus(a, b, "--seed", seed)[0][""] for seed in "778")
    assert first == again and (first["low"], first["high"]) != (other["low"], other["high"])


patterns = st.lists(st.tuples(*[st.sampled_from("rwx")] * 2), min_size=1, max_size=12).map(lambda p: [("r", "w"), *p])


@settings(max_examples=25)
@given(st.lists(patterns, min_size=1, max_size=3), st.integers(0, 99))
def test_swapping_a_and_b_flips_the_sign_exactly(splits, seed):
    sides = [result({str(i): rows("".join(pair[side] for pair in split)) for i, split in enumerate(splits)})
             for side in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        a, b = write(folder, a=sides[0], b=sides[1])
        flags = ("--samples", "100", "--seed", str(seed))
        one, other = run(a, b, *flags)[0], run(b, a, *flags)[0]
    assert one.keys() == other.keys()
    for name, row in one.items():
        swapped = other[name]
        assert (row["difference"], row["low"], row["high"]) == \
            (-swapped["difference"], -swapped["high"], -swapped["low"])
        assert (row["a"], row["only_a"], row["p"], row["n"]) == \
            (swapped["b"], swapped["only_b"], swapped["p"], swapped["n"])


def test_identical_files_give_0_in_0_to_0(versus):
    same = result({name: rows("rwwrxr") for name in "123"})
    table, printed = versus(same, same)
    assert list(table) == ["1", "2", "3", None]
    for row in table.values():
        assert (row["difference"], row["low"], row["high"], row["only_a"], row["only_b"]) == (0, 0, 0, 0, 0)
    assert table["1"]["p"] == 1 and "includes 0" in printed and "differs" not in printed


@pytest.mark.parametrize("a, b, says", [
    ("r" * 30, "w" * 29 + "r", "excludes 0: A is better on such videos, here by 96.67 points"),
    ("w" * 29 + "r", "r" * 30, "excludes 0: B is better on such videos, here by 96.67 points"),
    ("rwrw", "wrwr", "includes 0")])
def test_the_last_sentence_says_who_is_better_or_that_nobody_knows(versus, a, b, says):
    assert says in versus(result({"": rows(a)}), result({"": rows(b)}))[1].splitlines()[-1]


def test_score_and_top_choose_what_is_compared(versus):
    a, b = result({"": rows("rrrr")}), result({"": rows("rwww")})
    assert versus(a, b)[0][""]["difference"] == 75
    assert versus(a, b, "--score", "plain")[0][""]["difference"] == 0
    assert versus(a, b, "--top", "5")[0][""]["b"] == 100


# --- compare: which videos -----------------------------------------------------------------------------------------
def test_videos_are_paired_by_stem_wherever_they_lie(versus):
    a, b = rows("rrwwr"), rows("wrwwr")
    straight = versus(result({"": a}), result({"": b}))[0]
    moved = [{**row, "video": "/other/place/" + Path(row["video"]).stem + ".mp4"} for row in reversed(b)]
    assert versus(result({"": a}), result({"": moved}))[0] == straight and straight[""]["only_a"] == 1


def test_videos_of_one_name_and_class_are_paired_in_the_order_of_their_paths(versus):
    both = [{**row, "video": f"{folder}/x.avi"} for row, folder in zip(rows("rw"), "pq")]
    row = versus(result({"": both}), result({"": both[::-1]}))[0][""]
    assert (row["n"], row["a"], row["only_a"]) == (2, 50, 0)


def test_pairs_stand_in_an_order_that_no_hash_seed_changes():
    """Else the same seed would draw other videos in another process."""
    split = paired_difference.keyed({"per_video": rows("rw" * 20)[::-1]}, "modulated")
    pairs, _ = paired_difference.pair(split, split, 1)
    assert len(pairs) == 40 and pairs == sorted(pairs)


def test_what_one_could_not_decode_is_left_out_for_both_and_counted(versus):
    table, printed = versus(result({"2": rows("rxrwr")}), result({"2": rows("wrrxr")}))
    assert table["2"]["n"] == 3 and table["2"]["only_a"] == 1 and table["2"]["only_b"] == 0
    assert "left out of split 2: 2 not decoded by A or B" in printed


def test_what_only_one_has_is_left_out_and_counted(versus):
    a, b = rows("rrrr"), rows("wwww", start=1)                   # v_000 .. v_003 and v_001 .. v_004
    b[0] = {**b[0], "label": 4}
    table, printed = versus(result({"": a}, list="1"), result({"": b}, list="2"), "--anyway")
    assert table[""]["n"] == 2 and table[""]["difference"] == 100
    assert "left out: 1 of another label in A and B, 1 only in A, 1 only in B" in printed


def test_nothing_in_common_is_refused(versus):
    a = result({"1": rows("rr")})
    assert "no video of split 1 was decoded by both" in versus(a, result({"1": rows("rr", start=5)}))[1]
    assert "no video of split 1 was decoded by both" in versus(a, result({"1": rows("xx")}))[1]
    assert "no split in common" in versus(a, result({"2": rows("rr")}), "--anyway")[1]


def test_a_video_of_several_splits_is_drawn_once(versus):
    """Three copies of one split say no more than one: the same interval exactly, and no p-value."""
    a, b = rows("rrwrwrrrwwrr"), rows("wrrrwwrwwwrw")
    table, printed = versus(result({name: a for name in "123"}), result({name: b for name in "123"}))
    one, every = table["1"], table[None]
    assert (every["low"], every["high"]) == (one["low"], one["high"]) and every["low"] < every["high"]
    assert (every["n"], every["videos"], one["videos"]) == (36, 12, 12)
    assert every["p"] is None and one["p"] is not None and "36 answers on 12 distinct videos" in printed


def test_all_splits_pool_their_videos(versus):
    a, b = result({"1": rows("rrrr"), "2": rows("rw", start=9)}), result({"1": rows("rrww"), "2": rows("wr", start=9)})
    every = versus(a, b)[0][None]
    assert (every["n"], every["only_a"], every["only_b"]) == (6, 3, 1)
    assert every["difference"] == pytest.approx(100 * 2 / 6)


# --- compare: the protocol -----------------------------------------------------------------------------------------
OTHER = {"list": "z", "videos": 9, "classes": 51, "class_names": "z", "templates": "z", "frames": 16, "clips": 4,
         "crops": 3, "resize": 256, "neighbours": 1, "gamma": 0.04, "precision": "bf16", "some_new_field": 1,
         "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "squash", "interpolation": "bilinear"}


@pytest.mark.parametrize("field", OTHER)
def test_a_protocol_that_moves_the_number_is_refused_unless_asked(versus, field):
    a, b = result({"": rows("rrw")}), result({"": rows("rwr")}, **{field: OTHER[field]})
    table, line = versus(a, b)
    assert table is None and f"the protocols differ in {field}: " in line
    table, printed = versus(a, b, "--anyway")
    there = {**BEFORE, **a["splits"][0]["protocol"]}.get(field, "missing")
    assert table[""]["n"] == 3 and f"differs  {field}: A {there}, B {OTHER[field]} (" in printed


def test_a_file_from_before_pixels_stood_in_it_has_openais(versus):
    """Two such files agree; so does one with a new file of OpenAI's pixels, and with no other."""
    old, openai = result({"": rows("rrw")}), result({"": rows("rwr")}, **BEFORE)
    siglip = result({"": rows("rwr")}, **{**BEFORE, "resize_mode": "squash"})
    for a, b in ((old, old), (old, openai), (openai, old), (siglip, siglip)):
        table, printed = versus(a, b)
        assert table[""]["n"] == 3 and "differs" not in printed
    assert "the protocols differ in resize_mode: " in versus(siglip, old)[1]


def test_all_fields_that_differ_are_listed_before_the_refusal(tmp_path, capsys):
    videos = {"1": rows("r")}
    files = write(tmp_path, a=result(videos), b=result(videos, list="z", class_names="y", checkpoint="x"))
    with pytest.raises(SystemExit):
        compare.main(files)
    printed, line = capsys.readouterr()
    assert "list: A l1, B z (not the same videos" in printed and "class_names: A n, B y (the names shown" in printed
    assert "checkpoint: A 0123456789abcdef, B x (the model; not counted)" in printed
    assert "differ in list, class_names: " in line


@pytest.mark.parametrize("field, value", [("checkpoint", "f" * 16), ("clip_weight", 0.99), ("found", 2)])
def test_models_and_missing_files_are_shown_but_no_reason_to_refuse(versus, field, value):
    table, printed = versus(result({"": rows("rrw")}), result({"": rows("rwr")}, **{field: value}))
    assert table and f"differs  {field}: A " in printed and "; not counted)" in printed
    assert field != "found" or "A 3 of 3, B 2 of 3 (videos on disk" in printed


def test_the_fingerprint_is_shown_but_its_fields_are_compared(versus):
    """It is a hash of the others, and of the model perhaps."""
    table, printed = versus(result({"": rows("r")}), result({"": rows("r")}, fingerprint="99999999"))
    assert table and "differs" not in printed and "protocol 1a2b3c4d" in printed and "protocol 99999999" in printed


@pytest.mark.parametrize("field", ["neighbours", "gamma"])
def test_the_settings_of_modulation_do_not_count_without_it(versus, field):
    a, b = result({"": rows("r")}), result({"": rows("r")}, **{field: 0})
    assert versus(a, b)[0] is None and versus(a, b, "--score", "plain")[0]


def test_a_difference_in_one_split_names_it(versus):
    a = result({"1": rows("r"), "2": rows("r")})
    b = copy.deepcopy(a)
    b["splits"][1]["protocol"]["list"] = "z"
    assert "differs  list of split 2: A l2, B z" in versus(a, b, "--anyway")[1]


def test_other_splits_are_refused_unless_asked(versus):
    a, b = result({"1": rows("r"), "2": rows("r")}), result({"2": rows("w")})
    assert "the protocols differ in splits: " in versus(a, b)[1]
    table, printed = versus(a, b, "--anyway")
    assert list(table) == ["2"] and "differs  splits: A '1', '2', B '2'" in printed


def test_other_datasets_are_refused_always(versus):
    a, b = result({"": rows("r")}), result({"": rows("r")}, data="hmdb51")
    for flags in ((), ("--anyway",)):
        table, line = versus(a, b, *flags)
        assert table is None and "is ucf101" in line and "is hmdb51" in line


@pytest.mark.parametrize("flags", [["--samples", "99"], ["--seed", "-1"], ["--top", "3"], ["--score", "a"], ["more"]])
def test_a_wrong_flag_is_one_line(versus, flags):
    assert versus(result({"": rows("r")}), result({"": rows("r")}), *flags)[0] is None


# --- trade-off -----------------------------------------------------------------------------------------------------
TABLE_4 = [      # Tables 3 and 4: K400, UCF, HMDB, K600 -> HM_ZS, trade-off
    ("MoTE B/16 1x1", (81.8, 83.4, 55.8, 70.2), "67.9 74.2"), ("MoTE B/16 4x3", (83.0, 83.4, 55.8, 70.2), "67.9 74.7"),
    ("MoTE L/14", (86.8, 88.7, 61.4, 78.4), "74.4 80.1"), ("Text4Vis L/14", (86.7, 82.6, 52.4, 72.1), "66.6 75.3"),
    ("Open-VCLIP B/16", (78.9, 83.4, 53.9, 73.0), "67.8 72.9"),
    ("Open-VCLIP L/14", (83.9, 87.6, 59.0, 81.1), "73.7 78.5")]


@pytest.mark.parametrize("top1, printed", [row[1:] for row in TABLE_4], ids=[row[0] for row in TABLE_4])
def test_the_rows_of_the_paper_come_back_to_the_printed_digit(top1, printed):
    assert "{:.1f} {:.1f}".format(*trade_off.trade_off(*top1)) == printed


def test_the_row_of_16_frames_comes_back_from_its_hm_zs():
    assert f"{trade_off.harmonic_mean(87.2, 74.8):.1f}" == "80.5"


def test_the_paper_beside_ours_is_the_paper():
    shown = {column: [k400, *(top1 for top1, _ in rest)] for column, (k400, *rest) in trade_off.PAPER.items()}
    assert shown == dict(zip(("B/16 1x1", "B/16 4x3", "L/14 4x3"), (list(top1) for _, top1, _ in TABLE_4)))
    stds = [[std for _, std in rest] for _, *rest in trade_off.PAPER.values()]
    assert stds == [[0.7, 0.9, 0.6], [0.7, 0.9, 0.6], [0.6, 1.3, 0.9]]


@given(st.lists(st.floats(1e-3, 100), min_size=1, max_size=5))
def test_the_harmonic_mean_lies_between_its_numbers_and_below_the_plain_mean(numbers):
    mean = trade_off.harmonic_mean(*numbers)
    assert min(numbers) * (1 - 1e-12) <= mean <= max(numbers) * (1 + 1e-12)
    assert mean <= sum(numbers) / len(numbers) * (1 + 1e-12)


@pytest.mark.parametrize("where", range(4))
def test_an_accuracy_of_zero_makes_the_trade_off_zero(where):
    assert trade_off.trade_off(*(0 if i == where else 50 for i in range(4)))[1] == 0


def four(**changes) -> dict[str, dict]:
    """The four results of MoTE B/16; name=keywords of `result` change one of them."""
    means = {"k400": (83.0, 0.0, [""]), "ucf101": (83.4, 0.7, "123"), "hmdb51": (55.8, 0.9, "123"),
             "k600": (70.2, 0.6, "123")}
    return {name: result(**{"splits": {s: rows("rw") for s in splits}, "data": name, "top1": top1, "spread": std,
                            **changes.get(name, {})}) for name, (top1, std, splits) in means.items()}


NUMBER = r"\d+\.\d(?: ±\d\.\d)?"


@pytest.fixture
def traded(tmp_path):
    """traded(results, flags ...) -> (HM_ZS, trade-off) and the output of compare.py --trade-off."""
    return lambda results, *flags: run("--trade-off", *write(tmp_path, **results), *flags)


def test_the_table_of_the_papers_numbers_shows_them_twice(traded):
    means, printed = traded(four())
    assert [f"{mean:.1f}" for mean in means] == ["67.9", "74.7"]
    numbers = {line.split()[0]: (re.findall(NUMBER, line.split("|")[0]), re.findall(NUMBER, line.split("|")[1]))
               for line in printed.splitlines() if "|" in line and line[0] != " "}
    assert list(numbers) == ["k400", "ucf101", "hmdb51", "k600", "HM_ZS", "trade-off"]
    for name, (ours, papers) in numbers.items():
        assert len(ours) == 1 and len(papers) == 3 and ours[0] == papers[1], name
    assert numbers["ucf101"][0] == ["83.4 ±0.7"] and numbers["k400"] == (["83.0"], ["81.8", "83.0", "86.8"])
    assert "the paper: MoTE" in printed and "not run here" in printed and "warning" not in printed
    assert "ucf101, 3, 6, 3x1" in printed


def test_the_score_is_the_one_asked_for(traded):
    assert traded(four(), "--score", "plain")[0] == trade_off.trade_off(83.0 - 10, 83.4 - 10, 55.8 - 10, 70.2 - 10)


def test_files_in_another_order_are_refused(traded):
    results = four()
    swapped = {name: results[name] for name in ("k400", "hmdb51", "ucf101", "k600")}
    means, line = traded(swapped)
    assert means is None and "hmdb51.json is hmdb51, and file 2 must be ucf101" in line


def test_datasets_under_other_names_go_by_their_order(traded):
    means, printed = traded(four(ucf101={"data": "my-ucf"}))
    assert means == traded(four())[0] and "my-ucf, 3, 6" in printed


@pytest.mark.parametrize("change, warning", [
    ({"k600": {"checkpoint": "other"}}, "not one unified model: checkpoint is 0123456789abcdef (k400), "),
    ({"ucf101": {"clip_weight": 0.99}}, "not one unified model: clip_weight is 1.0 (k400), 0.99 (ucf101)"),
    ({"hmdb51": {"gamma": 0.1}}, "not one setting: gamma is 0.05 (k400), 0.05 (ucf101), 0.1 (hmdb51)"),
    ({"hmdb51": {"splits": {"1": rows("rw")}}}, "hmdb51 has 1 of its 3 splits"),
    ({"k400": {"splits": {"": rows("rxx")}}}, "k400: 2 videos were not decoded")])
def test_what_is_not_a_row_of_table_4_is_said_in_one_line(traded, change, warning):
    means, printed = traded(four(**change))
    said = [line for line in printed.splitlines() if line.startswith("warning: ")]
    assert means and len(said) == 1 and said[0].startswith(f"warning: {warning}")


def test_splits_of_different_checkpoints_are_not_one_model(traded):
    results = four()
    results["ucf101"]["splits"][1]["protocol"]["checkpoint"] = "other"
    assert "warning: not one unified model: checkpoint" in traded(results)[1]


def test_gamma_says_nothing_without_modulation(traded):
    assert "warning" not in traded(four(hmdb51={"gamma": 0.1}), "--score", "plain")[1]


# --- two files or four ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments, says", [
    ("", "a comparison takes exactly two files, A.json B.json (four go with --trade-off), got 0"),
    ("k400", "exactly two files, A.json B.json (four go with --trade-off), got 1"),
    ("k400 ucf101 hmdb51 k600", "exactly two files, A.json B.json (four go with --trade-off), got 4"),
    ("--trade-off", "--trade-off takes exactly four files, K400.json UCF101.json HMDB51.json K600.json, got 0"),
    ("--trade-off k400 k400", "exactly four files, K400.json UCF101.json HMDB51.json K600.json, got 2"),
    ("--trade-off k400 ucf101 hmdb51 k600 k600",
     "exactly four files, K400.json UCF101.json HMDB51.json K600.json, got 5"),
    ("--trade-off k400 ucf101 hmdb51 k600 --top 1", "--trade-off goes with --score alone, got --top"),
    ("--trade-off k400 ucf101 hmdb51 k600 --anyway", "--trade-off goes with --score alone, got --anyway"),
    ("--trade-off k400 ucf101 hmdb51 k600 --seed 0 --samples 200",
     "--trade-off goes with --score alone, got --samples, --seed")])
def test_what_does_not_go_together_is_one_line_that_says_what_does(arguments, says, tmp_path):
    files = dict(zip(four(), write(tmp_path, **four())))
    returned, line = run(*(files.get(word, word) for word in arguments.split()))
    assert returned is None and line.endswith(f"{says}\n")


def test_options_may_stand_anywhere_among_the_files(tmp_path):
    a, b = write(tmp_path, a=result({"": rows("rrwr")}), b=result({"": rows("rwww")}))
    straight = run(a, b, "--samples", "200", "--top", "5")
    assert straight[0] and run(a, "--samples", "200", b, "--top", "5") == run("--samples", "200", "--top", "5", a, b)
    assert run(a, "--samples", "200", b, "--top", "5") == straight
    files = write(tmp_path, **four())
    plain = run("--trade-off", *files, "--score", "plain")
    assert plain[0] and plain == run(*files[:2], "--score", "plain", *files[2:], "--trade-off")


# --- broken inputs, two files and four -----------------------------------------------------------------------------
def without(*path) -> dict:
    """A valid result of K400 less one key."""
    return change(result({"": rows("rw")}, data="k400"), path, None, delete=True)


def change(tree, path, value, delete=False):
    tree = copy.deepcopy(tree)
    place = tree
    for key in path[:-1]:
        place = place[key]
    if delete:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return tree


def after(broken, folder) -> list[tuple]:
    """What is done, of two files and of four, with a file in the first place, the others being valid."""
    good = four()
    one = write(folder, broken=broken, k400=good["k400"])
    return [run(*one, "--samples", "100"), run(*one[::-1], "--samples", "100"),
            run("--trade-off", one[0], *write(folder, **{name: good[name] for name in ("ucf101", "hmdb51", "k600")}))]


VALID = result({"": rows("rw")}, data="k400")
BROKEN = {
    "nothing": "", "no JSON": "{", "a list of eval.py --video": [{"probability": 0.5, "class": "a"}], "number": 1,
    "null": "null", "deep": "[" * 100000, "NaN": json.dumps(change(VALID, ("modulated", "top1"), float("nan"))),
    "infinity in the protocol": json.dumps(change(VALID, ("splits", 0, "protocol", "gamma"), float("inf"))),
    "no data": without("data"), "no splits": without("splits"), "empty splits": {**VALID, "splits": []},
    "no name": without("splits", 0, "split"), "no protocol": without("splits", 0, "protocol"),
    "no checkpoint in the protocol": without("splits", 0, "protocol", "checkpoint"), "bytes": b"\xff\xfe{}"}
COMPARE_ONLY = {
    "no per_video": without("splits", 0, "per_video"), "empty per_video": change(VALID, ("splits", 0, "per_video"), []),
    "no label": without("splits", 0, "per_video", 1, "label"),
    "no video": without("splits", 0, "per_video", 0, "video"),
    "no classes": without("splits", 0, "per_video", 0, "modulated"), "twice": {**VALID, "splits": VALID["splits"] * 2},
    "classes as text": change(VALID, ("splits", 0, "per_video", 0, "modulated"), ["a"]),
    "no list in the protocol": without("splits", 0, "protocol", "list")}
TRADE_OFF_ONLY = {
    "no top1": without("modulated", "top1"), "no std": without("modulated", "top1_std"),
    "no score": without("modulated"), "no decoded": without("splits", 0, "decoded"),
    "no clips in the protocol": without("splits", 0, "protocol", "clips"),
    **{f"top1 {top1!r}": change(VALID, ("modulated", "top1"), top1) for top1 in (100.5, -1, "83", True, None)}}


@pytest.mark.parametrize("name", [*BROKEN, *COMPARE_ONLY, *TRADE_OFF_ONLY])
def test_a_broken_file_is_one_line_that_names_it(name, tmp_path):
    broken = {**BROKEN, **COMPARE_ONLY, **TRADE_OFF_ONLY}[name]
    ends = after(broken, tmp_path)
    for returned, line in ends[:2] if name in COMPARE_ONLY else ends[2:] if name in TRADE_OFF_ONLY else ends:
        assert returned is None and "broken.json: " in line


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    for place in (tmp_path / "nowhere.json", tmp_path):
        for flags, count in (([], 2), (["--trade-off"], 4)):
            returned, line = run(*flags, *[str(place)] * count)
            assert returned is None and str(place) in line


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                        lambda inner: st.lists(inner, max_size=3) |
                        st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)


def paths(tree, before=()):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from paths(value, (*before, key))


mutated = st.builds(change, st.just(VALID), st.sampled_from(list(paths(VALID))), anything, st.booleans())


@given(anything | mutated | st.builds(lambda tree, cut: json.dumps(tree)[:cut], mutated, st.integers(0, 2000)))
def test_whatever_a_file_holds_is_a_table_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        for returned, printed in after(content if isinstance(content, str) else json.dumps(content), folder):
            assert returned or printed                           # `run` has looked at status and line


@pytest.mark.parametrize("flags, files", [([], ["k400", "k400"]),
                                          (["--trade-off"], ["k400", "ucf101", "hmdb51", "k600"])])
def test_the_tool_runs_from_anywhere_and_without_torch(flags, files, tmp_path):
    write(tmp_path, **four())
    script = "tools/compare.py"
    code = (f"import runpy, sys; sys.argv = [{script!r}, *sys.argv[1:]]; "
            f"runpy.run_path({str(ROOT / script)!r}, run_name='__main__'); assert 'torch' not in sys.modules")
    good = subprocess.run([sys.executable, "-c", code, *flags, *(f"{name}.json" for name in files)], cwd=tmp_path,
                          capture_output=True, text=True)
    assert good.returncode == 0 and good.stderr == "" and good.stdout
    bad = subprocess.run([sys.executable, str(ROOT / script), *flags], cwd=tmp_path, capture_output=True, text=True)
    assert bad.returncode == 2 and len(bad.stderr.splitlines()) == 1 and bad.stdout == ""


def test_a_name_with_dots_is_whole_and_a_number_in_two_classes_is_two_videos():
    rows = [{"video": "catch/Mr._Bean_catch_1.avi", "label": 0, "plain": [0], "modulated": [0]},
            {"video": "a/1.mp4", "label": 1, "plain": [1], "modulated": [1]},
            {"video": "b/1.mp4", "label": 2, "plain": [0], "modulated": [0]}]
    folders = [{**row, "video": row["video"].rpartition(".")[0]} for row in rows]            # the same, as JPEG folders
    a, b = (paired_difference.keyed({"per_video": each}, "plain") for each in (rows, folders))
    pairs, left_out = paired_difference.pair(a, b, 1)
    assert len({name for name, *_ in pairs}) == 3 and not any(left_out.values())
