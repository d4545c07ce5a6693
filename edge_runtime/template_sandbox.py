"""Where a bundle's chat template runs: jinja2's sandbox, with bounds on memory and time.

jinja2's sandbox keeps a template from the interpreter, but a few lines may still ask for all of a
machine's memory or years of its time. So here each value that a template makes is measured against
a :class:`_Budget`: results of operators, filters and calls, lists, slices and output. What could
grow beyond measure within one operation (a repetition, a width, a replacement) is checked before.
The passage of time is looked at whenever a value is made and each time a loop goes round.
"""

# ruff: noqa: ANN401  # templates have no types: what they pass round is anything

from __future__ import annotations

import functools
import itertools
import re
import string
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from contextvars import ContextVar
from typing import Any

import jinja2
import jinja2.filters
import jinja2.nodes
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
from jinja2.exceptions import SecurityError

from edge_runtime.template_metering import Metering

__all__ = ["Sandbox", "allot"]

_MAX_CHARACTERS = 1 << 22  # of one value, as printed; a context of a million tokens holds as many
_MAX_PRODUCED = 16 * _MAX_CHARACTERS  # of all values together, also of those no longer in use
_MAX_SECONDS = 10.0  # real templates take milliseconds
_MAX_DEPTH = 32
_ITEM_CHARACTERS = 16  # what an element of a list counts as, besides its text: it takes memory
_MAX_INTEGER_BITS = 4096
_MAX_WIDTH = 999
_PASSED_BY_JINJA = frozenset({"_block_vars", "_loop_vars"})  # keyword arguments of every call

# What templates use, and takes time and memory in proportion to its input. (Not: batch, center,
# format, pprint, random, round, slice, sum, truncate, urlize, wordwrap, xmlattr and the like.)
_FILTERS = """
    abs attr capitalize count d default dictsort e escape first float groupby indent int items
    join last length list lower map max min reject rejectattr replace reverse safe select
    selectattr sort string striptags title trim unique upper urlencode wordcount
""".split()  # noqa: SIM905  # a column of forty lines would say the same
_REFUSED_METHODS = frozenset({"encode", "expandtabs", "to_bytes", "translate"})
# Conversions like %s and %(name)05.2f, with widths of at most three digits.
_PRINTF = re.compile(r"(?:[^%]|%%|%(?:\(\w*\))?[-#0 +]*\d{0,3}(?:\.\d{0,3})?[A-Za-z])*")


class _Budget:
    """What one use of a template may still take. Raises jinja2's ``SecurityError`` at its end."""

    def __init__(self) -> None:
        self._produced = 0
        self._deadline = time.monotonic() + _MAX_SECONDS

    def tick(self) -> None:
        """Refuse to go on once the time is over."""
        if time.monotonic() > self._deadline:
            raise SecurityError(f"the template takes longer than {_MAX_SECONDS:g} s")

    def charge(self, value: Any) -> Any:
        """Count a new value, which is returned as it is."""
        self.tick()
        size = _printed_size(value)
        # The elements of a list were counted when they were made.
        elements = isinstance(value, list | tuple | dict)
        self._produced += _ITEM_CHARACTERS * len(value) if elements else size
        if self._produced > _MAX_PRODUCED:
            raise SecurityError(f"the template makes more than {_MAX_PRODUCED} characters")
        return value


_budget: ContextVar[_Budget] = ContextVar("budget")


class allot:  # noqa: N801  # a context manager, used like a function
    """Let templates that run inside the ``with`` block take one fresh budget."""

    def __enter__(self) -> None:
        self._token = _budget.set(_Budget())

    def __exit__(self, *_: object) -> None:
        _budget.reset(self._token)


class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """jinja2's sandbox with a budget; run its templates inside ``with allot():``."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters = {name: _charged(self.filters[name]) for name in _FILTERS}
        for name, function in (("indent", _indent), ("join", _join), ("replace", _replace)):
            self.filters[name] = _charged(function)
        del self.globals["lipsum"]  # makes up text of any length
        self.globals["namespace"] = _Namespace

    def from_string(
        self,
        source: str | jinja2.nodes.Template,
        *args: Any,
        **kwargs: Any,
    ) -> jinja2.Template:
        """Compile a template that calls the methods below wherever it makes something."""
        with allot():  # jinja2 computes constant expressions while it compiles
            tree = self.parse(source) if isinstance(source, str) else source
            return super().from_string(Metering().visit(tree), *args, **kwargs)

    def charge(self, value: Any) -> Any:
        """A list, tuple, dictionary or slice that the template makes."""
        return _budget.get().charge(value)

    def emit(self, value: object) -> str:
        """The text of something that the template outputs."""
        text: str = _budget.get().charge(str(value))
        return text

    def concatenate(self, *parts: object) -> str:
        """The operator ``~``."""
        _printed_size(parts)
        text: str = _budget.get().charge("".join(map(str, parts)))
        return text

    def counted(self, iterable: Iterable[object]) -> Iterator[object]:
        """What a loop runs over."""
        budget = _budget.get()
        for item in iterable:
            budget.tick()
            yield item

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Refuse methods, too, that make much of little or go round the measuring."""
        return attr not in _REFUSED_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` without large widths."""
        checked = super().wrap_str_format(value)
        if checked is None:
            return None
        text: str = value.__self__

        def bounded(*args: object, **kwargs: object) -> str:
            fields = [
                spec or ""
                for _, name, spec, _ in string.Formatter().parse(text)
                if name is not None
            ]
            if any("{" in spec or re.search(r"\d{4}", spec) for spec in fields):
                raise SecurityError("the template uses a format with a large or computed width")
            _check(len(fields) * (_MAX_WIDTH + _printed_size((args, kwargs))))
            return checked(*args, **kwargs)

        return bounded

    def call_binop(
        self,
        context: jinja2.runtime.Context,
        operator: str,
        left: Any,
        right: Any,
    ) -> Any:
        """The operators that are named above."""
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int):
                _check(left.bit_length() * right, _MAX_INTEGER_BITS)
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    _check(_printed_size(sequence) * times)
        elif operator == "%" and isinstance(left, str):
            if not _PRINTF.fullmatch(left):
                raise SecurityError("the template uses a format with a large or computed width")
            _check(left.count("%") * (_MAX_WIDTH + _printed_size(right)))
        return _budget.get().charge(super().call_binop(context, operator, left, right))

    # Positional only, lest they clash with the names of a template's own arguments.
    def call(
        self,
        context: jinja2.runtime.Context,
        obj: Any,
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Every call: of methods, macros, globals, and of this class's own methods above."""
        owner = getattr(obj, "__self__", None)
        if owner is self:
            return obj(*args)
        given = [value for name, value in kwargs.items() if name not in _PASSED_BY_JINJA]
        _printed_size((*args, *given))
        for value in (*args, *given):
            if isinstance(value, int):  # "x".ljust(10 ** 10)
                _check(value)
        if isinstance(owner, str):
            args = _check_method(owner, obj.__name__, args)
        return _budget.get().charge(super().call(context, obj, *args, **kwargs))


class _Namespace(jinja2.utils.Namespace):
    """jinja2's, which prints its contents: they could hold each other, and so print for ever."""

    def __repr__(self) -> str:
        return "<namespace>"


def _check(size: int, limit: int = _MAX_CHARACTERS) -> None:
    if size > limit:
        raise SecurityError(f"the template makes something larger than {limit}")


def _printed_size(value: object) -> int:
    """About how many characters a value prints as; refuses those that are too large or deep."""
    size = 0
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        size += len(item) if isinstance(item, str) else 0
        if isinstance(item, int):
            _check(item.bit_length(), 2 * _MAX_INTEGER_BITS)
        elif isinstance(item, dict):
            stack += [(each, depth + 1) for pair in item.items() for each in pair]
        elif isinstance(item, list | tuple | KeysView | ValuesView | ItemsView):
            stack += [(each, depth + 1) for each in item]
        size += _ITEM_CHARACTERS if depth else 0
        _check(size)
        _check(depth, _MAX_DEPTH)
    return size


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)  # with the mark that tells jinja2 what to pass first
    def filtered(*args: Any, **kwargs: Any) -> Any:
        return _budget.get().charge(function(*args, **kwargs))

    return filtered


def _check_method(owner: str, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse string methods that would make too much; an iterator's items are read for that."""
    if name == "replace" and len(args) >= 2:
        _check(len(owner) + owner.count(str(args[0])) * len(str(args[1])))
    elif name == "join" and args:
        items = list(itertools.islice(args[0], _MAX_CHARACTERS))
        _check(_printed_size(items) + len(items) * len(owner))
        return (items,)
    return args


def _replace(value: object, old: str, new: str, count: int | None = None) -> str:
    text = str(value)
    _check(len(text) + text.count(str(old)) * len(str(new)))
    return text.replace(str(old), str(new), -1 if count is None else count)


@jinja2.pass_eval_context
def _join(
    context: jinja2.nodes.EvalContext,
    value: Iterable[object],
    d: str = "",
    attribute: str | int | None = None,
) -> str:
    items = list(value)
    _check(_printed_size(items) + len(items) * len(str(d)))
    joined: str = jinja2.filters.sync_do_join(context, items, d, attribute)
    return joined


def _indent(
    s: str,
    width: int | str = 4,
    first: bool = False,  # noqa: FBT001, FBT002  # templates may pass these by position
    blank: bool = False,  # noqa: FBT001, FBT002
) -> str:
    size = len(width) if isinstance(width, str) else width
    _check(len(s) + size * (len(s.splitlines()) + 1))
    return jinja2.filters.do_indent(s, width, first, blank)
