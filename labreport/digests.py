"""What code computes, as a digest: of functions and classes without comments, docstrings, their annotations and layout.

A digest covers the code it is asked about and the own code that this refers to by name. Own is what is not of an
installed library: this package, a script, a notebook's cells.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import site
import sys
import sysconfig
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

DIGITS = 16
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def code_digest(*roots: Any, without: tuple[Any, ...] = ()) -> str:
    """16 hex digits of a sha256 over what `roots` compute: functions, classes, partial functions or plain values.

    The names of classes and modules do not count, so that code can move; the code that is referred to does, but for
    `without` and what only this refers to.
    """
    return _hash(_Reader(without).read(*roots))


def network_digest(model: Any, builder: Any) -> str:
    """16 hex digits that name what a torch module computes: its own classes' code, its layers, its state's shapes.

    `builder` is the class or function that made `model`: what it does to the first weights counts, too.
    """
    reader = _Reader()
    texts = reader.read(builder)
    for name, module in model.named_modules():
        kind = type(module)
        own = is_own(kind)
        texts += [name, "own" if own else f"{kind.__module__}.{kind.__qualname__}({module.extra_repr()})"]
        texts += reader.read(kind) if own else []
        values = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training" and _is_plain(v)}
        texts += [f"{key}={value!r}" for key, value in sorted(values.items())]
    texts += [f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in model.state_dict().items()]
    return _hash(texts)


def is_own(thing: Any) -> bool:
    """Whether a function, class or module is not of an installed library."""
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None) or ""
    if name.partition(".")[0] in ("labreport", "__main__"):
        return True
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and not any(Path(file).is_relative_to(folder) for folder in _libraries())


@functools.cache
def _libraries() -> tuple[str, ...]:
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(places | {*site.getsitepackages(), site.getusersitepackages()})


class _Reader:
    """Texts of own code, each piece once, in the order in which it is referred to."""

    def __init__(self, without: tuple[Any, ...] = ()) -> None:
        self._seen = {id(thing): thing for thing in without}  # keeps them alive, so that no id is used twice

    def read(self, *things: Any) -> list[str]:
        return [text for thing in things for text in self._read(thing)]

    def _read(self, thing: Any) -> Iterator[str]:
        if _is_plain(thing):
            yield repr(thing)
            return
        thing = getattr(thing, "__func__", thing)  # of a method
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, functools.partial):
            yield from self.read(thing.func, thing.args, tuple(sorted(thing.keywords.items())))
        elif isinstance(thing, type):
            yield from self._read_class(thing)
        elif isinstance(function := inspect.unwrap(thing), FunctionType) and is_own(function):
            yield _source(function, function.__code__)
            for value in _referred(function):
                yield from self._read(value)

    def _read_class(self, cls: type) -> Iterator[str]:
        if not is_own(cls):
            return
        yield from self.read(*cls.__bases__)
        for name, member in vars(cls).items():
            if isinstance(member, property):
                member = member.fget
            member = getattr(member, "__func__", member)  # of a class method or static method
            if isinstance(member, FunctionType) and member.__code__.co_filename != "<string>":  # a dataclass's own
                yield from self._read(member)
            elif not name.startswith("__") and _is_plain(member):
                yield f"{name}={member!r}"


@functools.cache
def _source(function: FunctionType, code: CodeType) -> str:
    """The function as Python's own parser understands it; its bytecode where there is no source.

    Parsed once for each `code` that it has: IPython's autoreload gives an edited function another one.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return repr(_bytecode(code))
    return ast.unparse(_Bare().visit(tree))


def _bytecode(code: CodeType) -> tuple:
    constants = (_bytecode(c) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.co_code, tuple(constants), code.co_names


class _Bare(ast.NodeTransformer):
    """Removes docstrings and annotations."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def _referred(function: FunctionType) -> Iterator[Any]:
    """What a function refers to by name: of its module, of its closure, and of own modules that it names."""
    names = list(dict.fromkeys(_names(function.__code__)))
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType):
            if is_own(value):
                yield from (vars(value)[other] for other in names if _counts(vars(value).get(other)))
        elif name in function.__globals__ and _counts(value):
            yield value
    for cell in function.__closure__ or ():
        if _counts(cell.cell_contents):
            yield cell.cell_contents


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _counts(value: Any) -> bool:
    code = isinstance(value, type | FunctionType | functools.partial) or hasattr(value, "__wrapped__")
    return (code and not isinstance(value, ModuleType)) or (value is not None and _is_plain(value))


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text or a collection of such, whose `repr` says all."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return type(value) is dict and all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    return isinstance(value, _PLAIN)


def _hash(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:DIGITS]
