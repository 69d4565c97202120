"""
The house style, measured over mote/, tools/, docs/, tests/torture/, tests/survey/, train.py and eval.py.

First each check of tests/support/style.py is tried on an offence, which it must name, and on the honest form, which it
must pass. Then each file is measured; a failure gives the file, the line and the rule.
"""
from pathlib import Path

import pytest
from support import style
from support.places import ROOT

SCRIPTS = [ROOT / "train.py", ROOT / "eval.py"]
MOTE = sorted((ROOT / "mote").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
DOCS = sorted((ROOT / "docs").rglob("*.py"))
TORTURE = sorted((ROOT / "tests/torture").rglob("*.py"))
SURVEY = sorted((ROOT / "tests/survey").rglob("*.py"))
FILES = [*MOTE, *TOOLS, *DOCS, *TORTURE, *SURVEY, *SCRIPTS]

STORY_LINES = 85                                 # `run` of train.py tells the whole training
# train.py is meant to have about 300 lines and at most 10 tokens a line (nanoGPT's: 7.5). The limits leave room for a
# loss or an option: whoever adds one must not make other lines dense to stay below them.
TRAIN_LINES = 345
TOKENS = 10.4                                    # per line of code


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def lines(offences: style.Offences) -> list[int]:
    return [number for number, _ in offences]


# --- what each check catches, and what it lets pass -----------------------------------------------
WIDE = "x = '" + 100 * "a" + "'"

CAUGHT = [
    (style.wide_lines, WIDE),
    (style.wide_lines, WIDE + "  # Eq. 7"),
    (style.wide_lines, "x = 1  # " + 100 * "a"),
    (style.wide_lines, "x = 1  # Eq. 7, which " + 100 * "a"),
    (style.wide_lines, "# " + 100 * "-"),
    (style.wide_lines, "def f():\n    '''\n    " + 100 * "a" + "\n    '''"),
    (style.long_functions, "def f():\n" + 60 * "    x = 1\n"),
    (style.long_functions, "def f():\n    '''\n" + 58 * "\n" + "    '''"),
    (style.long_functions, "class C:\n    async def f(self):\n" + 60 * "        x = 1\n"),
    (style.crowded_functions, "def f():\n" + "".join(f"    x{i} = 1\n" for i in range(26))),
    (style.crowded_functions,
     "def f():\n    def g():\n        y = 1\n" + "".join(f"    x{i} = 1\n" for i in range(25))),
    (style.truth_times_text, "x = 'a' * (b < c)"),
    (style.truth_times_text, "x = (b < c) * 'a'"),
    (style.truth_times_text, "x = f'{a}' * bool(b)"),
    (style.truth_times_text, "x = [1] * (not b)"),
    (style.truth_times_text, "x = ['a', 'b'] * (b and c)"),
    (style.truth_times_text, "x = ('a' + b) * (c in d)"),
    (style.truth_times_text, "x = ('a %d' % b) * (c == d)"),
    (style.truth_times_text, "x = f'{a}: {\"b\" * (c > d)}'"),
    (style.tuple_statements, "a.check(), b.check()"),
    (style.tuple_statements, "if x: f(), g()"),
    (style.unrelated_assignments, "a, b = f(), g()"),
    (style.unrelated_assignments, "a, b = f(), g().h"),
    (style.conditional_loops, "for x in y if c else (): pass"),
    (style.conditional_loops, "z = [x for x in (y if c else ())]"),
    (style.nested_conditionals, "x = a if b else c if d else e"),
    (style.nested_conditionals, "x = (a if b else c) if d else e"),
    (style.crowded_comprehensions, "z = [x for y in w for x in y]"),
    (style.crowded_comprehensions, "z = {x: 1 for x in y if x if x > 2}"),
    (style.crowded_comprehensions, "z = sum(x for y in w for x in y)"),
]

PASSED = [
    (style.wide_lines, "x = '" + 94 * "a" + "'"),                        # 100 columns
    (style.wide_lines, ("x = '" + 90 * "a" + "'").ljust(102) + "# Eq. 7"),
    (style.wide_lines, ("x = '" + 90 * "a" + "'").ljust(102) + "# Eq. 4, 5"),
    (style.wide_lines, ("x = '" + 90 * "a" + "'").ljust(102) + "# (Eq. 2-4)"),
    (style.wide_lines, "# --- 1. configuration " + 90 * "-"),
    (style.long_functions, "@one\n@two\ndef f():\n" + 59 * "    x = 1\n"),
    (style.long_functions, "class C:\n" + 99 * "    x = 1\n"),
    (style.crowded_functions, "def f():\n" + "".join(f"    x{i} = x{i} = 1\n" for i in range(25))),
    (style.crowded_functions, "def f():\n" + "".join(f"    x.y{i} = 1\n" for i in range(26))),
    (style.truth_times_text, "x = '-' * 20"),
    (style.truth_times_text, "x = [1] * len(y)"),
    (style.truth_times_text, "x = 'a' * (b + 1)"),
    (style.truth_times_text, "x = y * (b < c)"),                         # a mask, as far as can be seen
    (style.truth_times_text, "x = 'a' if b < c else ''"),
    (style.tuple_statements, "a.check()\nb.check()"),
    (style.tuple_statements, "x = a.check(), b.check()"),
    (style.unrelated_assignments, "a, b = b, a"),
    (style.unrelated_assignments, "a, b = f()"),
    (style.unrelated_assignments, "x, y = 0, 0"),
    (style.unrelated_assignments, "pair = f(), g()"),
    (style.conditional_loops, "if c:\n    for x in y: pass"),
    (style.conditional_loops, "z = [x if x else 0 for x in y]"),
    (style.nested_conditionals, "x = a if b else c"),
    (style.nested_conditionals, "x = a if b else f(c if d else e)"),
    (style.crowded_comprehensions, "z = [x for x in y if x > 2]"),
    (style.crowded_comprehensions, "z = [[x for x in y] for y in w]"),
]


@pytest.mark.parametrize("check, source", CAUGHT)
def test_an_offence_is_caught_once(check, source):
    assert len(check(source)) == 1


@pytest.mark.parametrize("check, source", PASSED)
def test_the_honest_form_passes(check, source):
    assert check(source) == []


def test_every_check_is_tried_both_ways():
    assert {check for check, _ in CAUGHT} == {check for check, _ in PASSED} == set(CHECKS)


def test_an_offence_is_named_with_its_line():
    source = "x = 1\nfor y in z if x else ():\n    f(), g()\n"
    assert lines(style.conditional_loops(source)) == [2]
    assert lines(style.tuple_statements(source)) == [3]
    assert lines(style.wide_lines("\n" + WIDE)) == [2]
    assert lines(style.long_functions("@one\ndef f():\n" + 60 * "    x = 1\n")) == [2]


def test_a_function_may_have_a_limit_of_its_own():
    source = "def run():\n" + 84 * "    x = 1\n"
    assert style.long_functions(source)
    assert not style.long_functions(source, exceptions={"run": 85})
    assert style.long_functions(source + "    x = 1\n", exceptions={"run": 85})


def test_tokens_per_line_match_numbers_worked_by_hand():
    assert style.tokens_per_line("x = 1\ny = f(x)\n") == (3 + 6) / 2
    assert style.tokens_per_line("# nothing\n\nx = 1  # one\n") == 3
    assert style.tokens_per_line("x = (\n    1,\n)\n") == 6 / 3
    assert style.tokens_per_line('"""\nWhat.\n\nMore.\n"""\nx = 1\n') == (1 + 3) / 5
    assert style.tokens_per_line('x = f"{a} and {b:.{c}f} and {d}"\n') == 3          # as before Python 3.12


def test_comment_and_docstring_lines_match_numbers_worked_by_hand():
    source = '"""\nWhat.\n\nMore.\n"""\n# why\nx = 1  # one\n\n# --- 1. data ---\ny = (\n    2)\n'
    assert style.count_lines(source) == (4 + 1 + 1, 3)
    assert style.comments_per_100([source, "x = 1\n"]) == 100 * 6 / 4


# --- the files, measured --------------------------------------------------------------------------
CHECKS = [style.wide_lines, style.long_functions, style.crowded_functions, style.truth_times_text,
          style.tuple_statements, style.unrelated_assignments, style.conditional_loops,
          style.nested_conditionals, style.crowded_comprehensions]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_file_keeps_the_house_style(file):
    source = file.read_text()
    offences = []
    for check in CHECKS:
        if check is style.long_functions and name(file) == "train.py":
            offences += check(source, exceptions={"run": STORY_LINES})
        else:
            offences += check(source)
    report = [f"{name(file)}:{number}: {rule}" for number, rule in sorted(offences)]
    assert not report, f"{len(report)} lines break a rule of tests/support/style.py\n" + "\n".join(report)


@pytest.mark.parametrize("file", SCRIPTS, ids=name)
def test_a_script_is_not_dense(file):
    measured = style.tokens_per_line(file.read_text())
    assert measured <= TOKENS, f"{name(file)}: {measured:.1f} tokens per line of code, at most {TOKENS}"


def test_train_is_read_in_one_sitting():
    measured = len((ROOT / "train.py").read_text().splitlines())
    assert measured <= TRAIN_LINES, f"train.py: {measured} lines, at most {TRAIN_LINES}"


@pytest.mark.parametrize("which, files, least", [
    ("mote/", MOTE, 45),
    ("train.py, eval.py, tools/", [*SCRIPTS, *TOOLS], 30),
], ids=["mote", "scripts"])
def test_the_code_says_why(which, files, least):
    """A folder as a whole: one file may need fewer words than another."""
    measured = style.comments_per_100([file.read_text() for file in files])
    report = [f"{which}: {measured:.0f} comment and docstring lines per 100 lines of code, at least {least}"]
    for file in files:
        documented, code = style.count_lines(file.read_text())
        report.append(f"{name(file)}: {documented} for {code} lines of code")
    assert measured >= least, "\n".join(report)


def test_no_line_of_the_tests_passes_120_columns():
    offences = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        wide = style.wide_lines(file.read_text(), limit=120)
        offences += [f"{name(file)}:{number}: {rule}" for number, rule in wide]
    assert not offences, "\n".join(offences)
