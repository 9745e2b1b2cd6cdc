"""Every small mistake that can be made in a Python file: a mutator over its syntax tree.

What it changes: operators and signs, comparisons, `and`/`or`, conditions, numbers (by one; floats by one percent),
flags, names in strings, bounds of slices, the order of arguments, of tuples and of matrix factors, transposes, keyword
arguments (left out), one-argument functions (left out), statements (left out).

What it leaves alone: docstrings, annotations, type aliases, imports, the text of error messages and the labels given to
`check_shape` (the conditions that lead to an error are changed), and `strict=` of `zip`, an assertion that fails in no
right program. Its limit: one change at a time, and none that needs understanding; the planted bugs are the other half.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple


class Mutant(NamedTuple):
    file: str  # below the root of the project
    line: int
    end: int  # last line of the statement, or of its head where it has a body
    function: str
    kind: str
    before: str  # the statement, one line
    after: str
    key: str  # survives changes elsewhere in the file
    source: str  # the whole file, changed


Change = Callable[[ast.AST], ast.AST | None]  # the node in its place; None: the statement is dropped

OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.BitXor: ast.BitAnd,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
TRANSPOSES = {"T", "mT"}
MOVES = {"swapaxes", "transpose", "copy", "clone", "detach", "contiguous", "astype", "flatten", "expand", "to"}
LIBRARIES = {"np", "torch", "math", "F"}
# Calls that cannot tell: a product is a product in any order, and NumPy takes every negative size for -1.
SYMMETRIC = {"swapaxes", "minimum", "maximum", "multiply", "add", "max", "min"}
BUILTINS = {"reversed", "abs", "list", "float", "int", "sorted"}


def mutants(file: str, source: str) -> list[Mutant]:
    """Every mutant of the file, in the order of its lines."""
    tree = ast.parse(source)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    skipped = _skipped(tree)
    texts = [ast.unparse(top) for top in tree.body]
    found: dict[str, Mutant] = {}  # by the changed source: some changes come to the same
    seen: Counter[str] = Counter()
    for i, top in enumerate(tree.body):  # only the changed one is parsed and written anew
        nodes = list(ast.walk(top))
        for index, node in enumerate(nodes):
            for kind, change in _changes(node, parents) if node not in skipped else ():
                statement, function = _place(node, parents)
                changed, at = _apply(_segment(source, top), index, change)
                before, after = _line(statement), _line(at[nodes.index(statement)])
                identity = f"{file}|{function}|{kind}|{before}|{after}"
                seen[identity] += 1
                key = hashlib.blake2b(f"{identity}|{seen[identity]}".encode(), digest_size=6).hexdigest()
                text = ast.unparse(changed)
                if text != texts[i]:
                    whole = "\n\n".join([*texts[:i], text, *texts[i + 1 :]])
                    where = file, statement.lineno, _end(statement), function
                    found.setdefault(whole, Mutant(*where, kind, before, after, key, whole))
    return sorted(found.values(), key=lambda m: (m.line, m.key))


def _segment(source: str, top: ast.stmt) -> str:
    """The lines of a statement, with its decorators."""
    first = min([top.lineno, *(d.lineno for d in getattr(top, "decorator_list", ()))])
    return "\n".join(source.splitlines()[first - 1 : top.end_lineno])


def _skipped(tree: ast.Module) -> set[ast.AST]:
    """Nodes not to touch, with everything below them."""
    roots: list[ast.AST] = []
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str())) | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
                roots.append(node)
            case ast.FunctionDef():
                roots += [*filter(None, [node.returns]), *node.decorator_list]
            case ast.arg(annotation=ast.AST() as annotation) | ast.AnnAssign(annotation=annotation):
                roots.append(annotation)
            case ast.keyword(arg="strict"):
                roots.append(node)
            case ast.Raise():
                roots += list(ast.iter_child_nodes(node))
            case ast.Call(func=ast.Attribute(attr="reshape")):
                roots += [n for a in node.args for n in ast.walk(a) if _is_minus_one(n)]
            case ast.Call(func=ast.Name(id="check_shape")):
                roots += [n for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    for node in tree.body:  # Array = np.ndarray, Path = Literal[...]
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Attribute, ast.Subscript)):
            roots.append(node)
        if isinstance(node, ast.Assign) and _line(node).startswith("__all__"):
            roots.append(node)
    return {below for root in roots for below in ast.walk(root)}


def _place(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> tuple[ast.stmt, str]:
    """The statement that holds the node, and the dotted name of the function around it."""
    names, statement = [], None
    current: ast.AST | None = node
    while current is not None:
        if statement is None and isinstance(current, ast.stmt):
            statement = current
        if isinstance(current, (ast.FunctionDef, ast.ClassDef)):
            names.append(current.name)
        current = parents.get(current)
    assert statement is not None
    return statement, ".".join(reversed(names))


def _end(statement: ast.stmt) -> int:
    body = getattr(statement, "body", None)
    return max(statement.lineno, body[0].lineno - 1) if body else statement.end_lineno or statement.lineno


def _line(node: ast.AST | None) -> str:
    if node is None:
        return "(nothing)"
    text = ast.unparse(node)
    if isinstance(node, ast.FunctionDef):
        return next(line for line in text.splitlines() if line.startswith("def "))
    return text.splitlines()[0]


def _apply(source: str, index: int, change: Change) -> tuple[ast.Module, list[ast.AST | None]]:
    """(the changed statement, its nodes as numbered before the change)."""
    tree = ast.parse(source)
    nodes: list[ast.AST | None] = list(ast.walk(tree.body[0]))
    target = nodes[index]
    assert target is not None
    new = change(target)
    if new is not target:
        for parent in [tree, *filter(None, nodes)]:
            for field, value in ast.iter_fields(parent):
                if value is target:
                    setattr(parent, field, new)
                elif isinstance(value, list) and any(item is target for item in value):
                    dropped = ast.Pass() if new is None else new
                    setattr(parent, field, [dropped if item is target else item for item in value])
        nodes[index] = new
    return ast.fix_missing_locations(tree), nodes


# ---- what can be changed in a node -----------------------------------------------------------------------------


def _set(**fields) -> Change:
    def change(node: ast.AST) -> ast.AST:
        for name, value in fields.items():
            setattr(node, name, value(getattr(node, name)) if callable(value) else value)
        return node

    return change


def _swap(field: str, i: int) -> Change:
    def exchange(items: list) -> list:
        return [*items[:i], items[i + 1], items[i], *items[i + 2 :]]

    return _set(**{field: exchange})


def _swaps(node: ast.AST, field: str) -> Iterator[tuple[str, Change]]:
    items = getattr(node, field)
    for i, (a, b) in enumerate(pairwise(items)):
        starred = isinstance(a, ast.Starred) or isinstance(b, ast.Starred)
        labels = _is_text(a) and _is_text(b)  # of check_shape, or a choice whose order says nothing
        if ast.dump(a) != ast.dump(b) and not starred and not labels:
            yield "exchange", _swap(field, i)


def _is_set(parent: ast.AST) -> bool:
    """Whether a tuple here names axes to sum over, in whatever order."""
    match parent:
        case ast.keyword(arg="axis" | "dim") | ast.Call(func=ast.Attribute(attr="sum" | "mean")):
            return True
    return False


def _is_minus_one(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and ast.unparse(node) == "-1"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _negate(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _changes(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.BinOp(op=ast.MatMult()):
            yield "exchange", lambda n: ast.BinOp(n.right, n.op, n.left)
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield "operator", _set(op=OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.USub() | ast.Not()):
            yield "sign", lambda n: n.operand
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                new = COMPARISONS[type(op)]()
                yield "comparison", _set(ops=lambda old, i=i, new=new: [*old[:i], new, *old[i + 1 :]])
        case ast.BoolOp(op=op):
            yield "and/or", _set(op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.IfExp() | ast.If():
            yield "condition", _set(test=_negate)
        case ast.comprehension(ifs=[_]):
            yield "condition", _set(ifs=lambda ifs: [_negate(ifs[0])])
        case ast.Constant():
            yield from _constants(node)
        case ast.Slice():
            if node.lower is None:
                yield "slice", _set(lower=ast.Constant(1))
            elif ast.unparse(node.lower) != "0":
                yield "slice", _set(lower=None)
            if node.upper is None:
                yield "slice", _set(upper=ast.UnaryOp(ast.USub(), ast.Constant(1)))
            else:
                yield "slice", _set(upper=None)
        case ast.Attribute(attr=attr) if attr in TRANSPOSES:
            yield "transpose", lambda n: n.value
        case ast.Tuple(ctx=ast.Load()) if not isinstance(parents[node], ast.Subscript) and not _is_set(parents[node]):
            yield from _swaps(node, "elts")
        case ast.Call():
            yield from _calls(node)
    yield from _statements(node, parents)


def _constants(node: ast.Constant) -> Iterator[tuple[str, Change]]:
    value = node.value
    if isinstance(value, bool):
        yield "flag", _set(value=not value)
    elif isinstance(value, int):
        yield "number", _set(value=value + 1)
        yield "number", _set(value=value - 1)
    elif isinstance(value, float):
        yield "number", _set(value=value * 1.01 if value else 0.01)
    elif isinstance(value, str):
        yield "name", _set(value=value + "_")


def _calls(node: ast.Call) -> Iterator[tuple[str, Change]]:
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    if method not in SYMMETRIC and (method, len(node.args)) != ("transpose", 2):  # torch's, of two axes
        yield from _swaps(node, "args")
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            yield "argument", _set(keywords=lambda old, i=i: old[:i] + old[i + 1 :])
    match node.func:
        case ast.Attribute(value=ast.Name(id=library)) if library in LIBRARIES and len(node.args) == 1:
            yield "call", lambda n: n.args[0]
        case ast.Attribute(attr=method) if method in MOVES:
            yield "transpose", lambda n: n.func.value
        case ast.Name(id=name) if name in BUILTINS and len(node.args) == 1:
            yield "call", lambda n: n.args[0]


def _statements(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> Iterator[tuple[str, Change]]:
    droppable = False
    match node:
        case ast.AugAssign() | ast.Raise() | ast.Expr(value=ast.Call()):
            droppable = True
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            droppable = True
        case ast.Assign(targets=[target]):  # only where the names had a value before
            names = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)}
            droppable = names <= _bound_before(node, parents)
    if droppable:
        yield "statement", lambda n: None


def _bound_before(node: ast.stmt, parents: dict[ast.AST, ast.AST]) -> set[str]:
    around: ast.AST = node
    while around in parents and not isinstance(around, ast.FunctionDef):
        around = parents[around]
    bound: set[str] = set()
    for other in ast.walk(around):
        if isinstance(other, ast.arg):
            bound.add(other.arg)
        elif isinstance(other, ast.Name) and isinstance(other.ctx, ast.Store) and other.lineno < node.lineno:
            bound.add(other.id)
    return bound
