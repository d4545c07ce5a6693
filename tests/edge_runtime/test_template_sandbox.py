"""A chat template computes what it ought to, and cannot take all memory or time."""

import time

import jinja2
import pytest

from edge_runtime import template_sandbox
from edge_runtime.chat import ChatTemplate, Message
from lambda_split.errors import ChatTemplateError, ChatTemplateInvalid

START = "{% set ns = namespace(s='xxxxxxxx', l=[1, 2], d={'k': 'v'}, n=3) %}"
SIXTY = START + "{% for i in range(60) %}"
LONG = "{% set s = 'x' * 10 ** 6 %}"
TOO_LARGE = {
    # Sixty doublings of something small.
    "concatenation": SIXTY + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "sum": SIXTY + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "sum of lists": SIXTY + "{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "square": SIXTY + "{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "join": SIXTY + "{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "method join": SIXTY + "{% set ns.s = ns.s.join(['a', 'b', 'c']) %}{% endfor %}",
    "block set": SIXTY + "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}" + SIXTY + "{% set ns.s = f(ns.s) %}"
    "{% endfor %}",
    "nested lists": SIXTY + "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "nested dictionaries": SIXTY + "{% set ns.d = dict(a=ns.d, b=ns.d) %}{% endfor %}{{ ns.d }}",
    "nested views": SIXTY + "{% set ns.d = {1: ns.d.items(), 2: ns.d.items()} %}{% endfor %}"
    "{{ ns.d | tojson }}",
    "arguments": "{% macro f() %}{{ f(varargs, varargs) }}{% endmacro %}{{ f('x') }}",
    "recursion": "{% macro again(n) %}{{ again(n + 1) }}{% endmacro %}{{ again(0) }}",
    # Something huge at once.
    "repetition": "{{ 'x' * 10 ** 10 }}",
    "repetition of a list": "{% set n = 10 ** 10 %}{{ n * [messages] }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "range": "{% for i in range(10 ** 7) %}{% endfor %}",
    "adjusted text": "{{ 'x'.ljust(10 ** 10) }}",
    "tabulators": "{{ ('\\t' * 10 ** 5).expandtabs(10 ** 6) }}",
    "translation": "{{ ('a' * 10 ** 5).translate({97: 'x' * 10 ** 5}) }}",
    "bytes": "{{ 'x'.encode().ljust(10 ** 6) }}",
    "% width": "{{ '%0700000000d' % 1 }}",
    "% computed width": "{{ '%*d' % (700000000, 1) }}",
    "% with an odd key": "{{ '%(a(b)c)700000000d' % {'a(b)c': 1} }}",
    "% many times": LONG + "{{ ('%(a)s' * 1000) % {'a': s} }}",
    "format width": "{{ '{:>800000000}'.format(1) }}",
    "format computed width": "{{ '{:{}}'.format(1, 10 ** 6) }}",
    "format of a mapping": "{{ '{a:>800000000}'.format_map({'a': 1}) }}",
    "format as attribute": "{{ ('{:>800000000}' | attr('format'))(1) }}",
    "format many times": LONG + "{{ ('{0}' * 1000).format(s) }}",
    "JSON indent": "{{ messages | tojson(indent=800000000) }}",
    "JSON indent text": LONG + "{{ messages | tojson(indent=s) }}",
    "JSON separators": LONG + "{{ messages | tojson(separators=(s, ':')) }}",
    "indent": "{{ ('a\\n' * 1000) | indent(10 ** 6) }}",
    "indent text": LONG + "{{ ('a\\n' * 1000) | indent(s) }}",
    "replacement": LONG + "{{ s | replace('', s) }}",
    "method replacement": LONG + "{{ s.replace('x', s) }}",
    "replacement of markup": LONG + "{{ s | safe | replace('x', s) }}",
    "replacement of a block": "{% filter replace('y', 'x' * 10 ** 6) %}yyyyyy{% endfilter %}",
    "join of a generator": LONG + "{{ range(1000) | map('string') | join(s) }}",
    "method join of a generator": LONG + "{{ s.join(range(1000) | map('string')) }}",
    "date": "{{ strftime_now('%0999999999d') }}",
    # Much in all.
    "output": LONG + "{% for i in range(100) %}{{ s }}{% endfor %}",
    "output of a block": LONG
    + "{% set y %}{% for i in range(100) %}{{ s }}{% endfor %}{% endset %}",
    "plain output": "{% for i in range(100000) %}" + "x" * 10_000 + "{% endfor %}",
    "slices": LONG + "".join(f"{{% set a{i} = s[1:] %}}" for i in range(100)),
}


REFUSALS = "template (makes|uses|asks|indents|separates)|is unsafe|too big|RecursionError"


@pytest.mark.parametrize("kind", TOO_LARGE)
@pytest.mark.timeout(120)
def test_a_template_cannot_take_all_memory(monkeypatch, kind):
    template = ChatTemplate.from_source(TOO_LARGE[kind], {})
    monkeypatch.setattr(template_sandbox, "_MAX_SECONDS", 100)
    # Refused, that is, and not failed for want of memory.
    with pytest.raises(ChatTemplateError, match=REFUSALS) as caught:
        template.render([Message("user", "hi")])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) if b < 0 %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{{ range(100000) | select('none') | list }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for a in range(9**5) recursive %}{{ loop(range(9**5)) if loop.depth < 6 }}{% endfor %}",
    ],
)
@pytest.mark.timeout(120)
def test_a_template_cannot_take_for_ever(monkeypatch, source):
    template = ChatTemplate.from_source(source, {})
    monkeypatch.setattr(template_sandbox, "_MAX_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(ChatTemplateError, match="longer than"):
        template.render([Message("user", "hi")])
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", ["batch", "center", "format", "pprint", "slice", "wordwrap"])
def test_filters_that_make_much_of_little_are_not_there(name):
    with pytest.raises(ChatTemplateInvalid, match=name):
        ChatTemplate.from_source("{{ 'x' | " + name + "(9) }}", {})


def test_a_long_conversation_fits():
    # Built up as some templates do it, each turn copying what was there before.
    source = (
        "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t ~ m.content %}"
    )
    template = ChatTemplate.from_source(source + "{% endfor %}{{ ns.t }}", {})
    assert len(template.render([Message("user", "x" * 1000)] * 200)) == 200_000


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ '%s|%5.1f|%(x)s' % (1, 2) if false else '%s|%5.1f%%' % ('a', 2) }}", "a|  2.0%"),
        ("{{ '%(a)s' % {'a': 1} }}{{ '{}-{a:>3}'.format(1, a=2) }}", "11-  2"),
        ("{{ 'a-b'.replace('-', '+') }}{{ 'aaa' | replace('a', 'b', 2) }}", "a+bbba"),
        (
            "{{ [{'n': 1}, {'n': 2}] | join(',', attribute='n') }}{{ '-'.join(['a', 'b']) }}",
            "1,2a-b",
        ),
        ("{{ 'a\nb' | indent(2) }}{{ 'a\nb' | indent('>', true) }}", "a\n  b>a\n>b"),
        (
            "{% for x in [1, 2, 3] if x > 1 %}{{ loop.length }}{{ loop.last }}{% endfor %}",
            "2False2True",
        ),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% else %}none{% endfor %}", "a1"),
        ("{% for x in nothing %}{{ x }}{% else %}none{% endfor %}", "none"),
        (
            "{% for x in [1, [2]] recursive %}{{ loop(x) if x is sequence else x }}{% endfor %}",
            "12",
        ),
        (
            "{% set a, b = (1, 2) %}{{ a }}{{ b }}{{ [1, 2, 3][::-1] }}{{ 'abc'[1:] }}",
            "12[3, 2, 1]bc",
        ),
        ("{% set t %}a{% filter upper %}b{% endfilter %}{% endset %}{{ t ~ 1 ~ none }}", "aB1None"),
        ("{{ messages | map(attribute='role') | map('upper') | unique | list }}", "['USER']"),
        (
            "{% macro f(x, y=2) %}{{ x ~ y ~ caller() }}{% endmacro %}{% call f(1) %}{% endcall %}",
            "12",
        ),
    ],
)
def test_what_is_metered_computes_as_ever(source, expected):
    template = ChatTemplate.from_source(source, {})
    assert template.render([Message("user", "hi")]) == expected
    plain = jinja2.Environment().from_string(source)  # noqa: S701  # plain text
    assert plain.render(messages=[{"role": "user", "content": "hi"}]) == expected
