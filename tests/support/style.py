"""
The house style, measured: each check takes the text of a file and returns the lines that break one rule, with the rule.

    wide_lines                 at most 100 columns; rulers and equation comments may pass
    long_functions             at most 60 lines, from `def` to the last line
    crowded_functions          at most 25 local names
    truth_times_text           no text or list multiplied by a truth value: write an `if`
    tuple_statements           no tuple as a statement: write two lines
    unrelated_assignments      no `a, b = f(), g()`: write two lines
    conditional_loops          no `for x in y if c else z`: put an `if` around the loop
    nested_conditionals        no conditional expression inside another
    crowded_comprehensions     one `for` and at most one `if`

Two figures are of a file as a whole: `tokens_per_line` and `comments_per_100`. `imported_modules` says what a file
depends on. tests/house/test_style.py shows what each check catches and what it lets pass.
"""
import ast
import io
import re
import token
import tokenize
from collections.abc import Iterator
from pathlib import Path

COLUMNS = 100
LINES = 60
NAMES = 25

Offences = list[tuple[int, str]]                 # (number of the line, the rule that it breaks)

RULER = re.compile(r"\s*# --- .* ?-{3,}$")
EQUATION = re.compile(r"# \(?Eq\. \d+((, |-| and )\d+)*\)?$")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


# --- lines and functions --------------------------------------------------------------------------
def wide_lines(source: str, limit: int = COLUMNS) -> Offences:
    """A line may pass the limit if it is a ruler, or if all that passes is a comment that names equations."""
    offences = []
    for number, line in enumerate(source.splitlines(), start=1):
        equation = EQUATION.search(line)
        code = line[:equation.start()].rstrip() if equation else line
        if len(code) > limit and not RULER.fullmatch(line):
            offences.append((number, f"{len(line)} columns, at most {limit}"))
    return offences


def long_functions(source: str, limit: int = LINES, exceptions: dict[str, int] | None = None) -> Offences:
    """exceptions: function name -> a limit of its own."""
    offences = []
    for function in functions(source):
        allowed = (exceptions or {}).get(function.name, limit)
        lines = function.end_lineno - function.lineno + 1
        if lines > allowed:
            offences.append((function.lineno, f"{function.name} has {lines} lines, at most {allowed}"))
    return offences


def crowded_functions(source: str, limit: int = NAMES) -> Offences:
    """Names that are assigned, also by loops, `with`, comprehensions and functions inside. Not parameters."""
    offences = []
    for function in functions(source):
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and stores(node)}
        if len(names) > limit:
            offences.append((function.lineno, f"{function.name} has {len(names)} local names, at most {limit}"))
    return offences


def functions(source: str) -> list:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, FUNCTIONS)]


def stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


# --- expressions that must be run in the head -----------------------------------------------------
def truth_times_text(source: str) -> Offences:
    rule = "text or a list multiplied by a truth value: write an `if`"
    products = [node for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)]
    return [(node.lineno, rule) for node in products
            if (is_text(node.left) and is_truth(node.right)) or (is_truth(node.left) and is_text(node.right))]


def is_text(node: ast.expr) -> bool:
    """Whether the node is seen to be a string, a list or a tuple. A name may be one too: that is not seen."""
    if isinstance(node, ast.BinOp):                              # "a" + b, "%d" % n
        return is_text(node.left) or is_text(node.right)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (str, bytes))
    return isinstance(node, (ast.JoinedStr, ast.List, ast.ListComp, ast.Tuple))


def is_truth(node: ast.expr) -> bool:
    """Whether the node is seen to be a truth value: a comparison, `and`, `or`, `not`, bool(...)."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("bool", "isinstance", "any", "all")
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.Not)
    return isinstance(node, (ast.Compare, ast.BoolOp))


def tuple_statements(source: str) -> Offences:
    return [(node.lineno, "a tuple as a statement: write one line for each of its parts")
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple)]


def unrelated_assignments(source: str) -> Offences:
    """`a, b = f(), g()`. Values without calls may share a line: `a, b = b, a`, `x, y = 0, 0`."""
    offences = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            unpacked = isinstance(node.targets[0], ast.Tuple)
            calls = [value for value in node.value.elts if contains_call(value)]
            if unpacked and len(calls) > 1:
                offences.append((node.lineno, "two calls assigned in one statement: write two lines"))
    return offences


def contains_call(value: ast.expr) -> bool:
    return any(isinstance(node, ast.Call) for node in ast.walk(value))


def conditional_loops(source: str) -> Offences:
    loops = (ast.For, ast.AsyncFor, ast.comprehension)
    return [(node.iter.lineno, "a loop over a conditional expression: put an `if` around the loop")
            for node in ast.walk(ast.parse(source)) if isinstance(node, loops) and isinstance(node.iter, ast.IfExp)]


def nested_conditionals(source: str) -> Offences:
    """`a if b else c if d else e`, also in brackets. Not a conditional inside the argument of a call."""
    offences = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.IfExp):
            parts = (node.body, node.test, node.orelse)
            if any(isinstance(part, ast.IfExp) for part in parts):
                offences.append((node.lineno, "a conditional expression inside another: write an `if`"))
    return offences


def crowded_comprehensions(source: str) -> Offences:
    rule = "a comprehension has one `for` and at most one `if`: write a loop"
    return [(node.lineno, rule) for node in ast.walk(ast.parse(source))
            if isinstance(node, COMPREHENSIONS) and (len(node.generators) > 1 or len(node.generators[0].ifs) > 1)]


# --- figures of a whole file ----------------------------------------------------------------------
LAYOUT = {token.NL, token.NEWLINE, token.INDENT, token.DEDENT, token.ENDMARKER, token.COMMENT}


def tokens_per_line(source: str) -> float:
    """How dense the code is: tokens, without comments and layout, over lines that are neither blank nor a comment.

    A docstring is one token and counts its lines. An f-string is one token too: Python 3.12 began to split it.
    """
    tokens = 0
    depth = 0                                    # in how many f-strings, one inside the other
    for item in tokenize.generate_tokens(io.StringIO(source).readline):
        name = token.tok_name[item.type]
        if depth == 0 and item.type not in LAYOUT:
            tokens += 1
        if name in ("FSTRING_START", "TSTRING_START"):
            depth += 1
        elif name in ("FSTRING_END", "TSTRING_END"):
            depth -= 1
    lines = [line for line in map(str.strip, source.splitlines()) if line and not line.startswith("#")]
    return tokens / len(lines)


def count_lines(source: str) -> tuple[int, int]:
    """-> lines with a comment or a part of a docstring, lines with code. A line can be both.

    Rulers and blank lines are neither.
    """
    text = source.splitlines()
    docstrings = {number for number in docstring_lines(source) if text[number - 1].strip()}
    comments, code = set(), set()
    for item in tokenize.generate_tokens(io.StringIO(source).readline):
        if item.type == token.COMMENT:
            if not RULER.fullmatch(item.string):
                comments.add(item.start[0])
        elif item.type not in LAYOUT:
            code.update(range(item.start[0], item.end[0] + 1))
    return len(comments | docstrings), len(code - set(docstring_lines(source)))


def docstring_lines(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, node.end_lineno + 1)


def comments_per_100(sources: list[str]) -> float:
    """Comment and docstring lines per 100 lines of code, over some files together."""
    counts = [count_lines(source) for source in sources]
    return 100 * sum(documented for documented, _ in counts) / sum(code for _, code in counts)


# --- what a file imports --------------------------------------------------------------------------
def imported_modules(source: str, file: Path) -> set[str]:
    """Dotted names, also of imports inside functions. file: its path from the repository's root, for `from . import`.

    `from a import b` gives a and a.b: b may be a module.
    """
    package = file.parent.parts
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found
