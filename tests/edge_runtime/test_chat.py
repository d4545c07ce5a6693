"""Chat templates render as transformers renders them, and cannot do anything else."""

import datetime as dt
import re

import jinja2
import pytest
import transformers

from edge_runtime.chat import ChatTemplate, Message
from lambda_split.errors import ChatTemplateError, ChatTemplateInvalid

from . import some_tokenizers

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

CHATML = """
{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""

LLAMA_2 = """
{%- if messages[0]['role'] == 'system' %}
    {%- set turns = messages[1:] %}
    {%- set system_message = messages[0]['content'] %}
{%- else %}
    {%- set turns = messages %}
    {%- set system_message = false %}
{%- endif %}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/…') }}
    {%- endif %}
    {%- if loop.index0 == 0 and system_message != false %}
        {%- set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}
    {%- else %}
        {%- set content = message['content'] %}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {%- else %}
        {{- ' ' + content.strip() + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
"""

# Block tags on lines of their own, without minus signs: only trim_blocks and lstrip_blocks remove
# the lines.
LLAMA_3 = """{{ bos_token }}{% for message in messages %}
    {% set content = '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim %}
    {% if loop.index > 50 %}
        {% break %}
    {% elif message['content'] == '' %}
        {% continue %}
    {% endif %}
{{ content }}<|eot|>
{% endfor %}
{% if add_generation_prompt %}
<|start|>assistant<|end|>
{% endif %}"""

GEMMA = """{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
    {%- set ns.count = ns.count + 1 %}
    {%- set role = 'model' if message.role == 'assistant' else message.role %}
    {{- '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}
{{- ns.count }}"""

EVERYTHING = """{%- macro turn(message) -%}
<{{ message.role | upper }}>{{ message | tojson }} {{ message.content | tojson(indent=2) }}
{%- endmacro %}
{%- if tools is not none %}tools{% endif %}{%- if not documents %}no documents{% endif %}
{%- for message in messages[::-1] %}
{{ turn(message) }}{{ loop.cycle('a', 'b') }}
{%- if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ eos_token }}
{% endgeneration %}{% endif %}
{%- endfor %}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}
{{ strftime_now('%Y-%m-%d') }} {{ undefined_thing }} {{ undefined_thing is defined }}
{{ {'a': [1, 2.5, None], 'b': '<&>é'} | tojson }} {{ range(3) | list }} {{ 3 * '-' }} {{ 2 ** 10 }}
"""

CONVERSATIONS = {
    "one turn": [Message("user", "Hi <b>&</b> 'you' \"there\"")],
    "with system": [Message("system", " Be brief. "), Message("user", "Hi\n")],
    "three turns": [
        Message("user", " What is 你好? "),
        Message("assistant", "Hello 👋\n\n"),
        Message("user", ""),
    ],
    "two users": [Message("user", "a"), Message("user", "b")],
}
TEMPLATES = {
    "chatml": CHATML,
    "llama 2": LLAMA_2,
    "llama 3": LLAMA_3,
    "gemma": GEMMA,
    "everything": EVERYTHING,
}


@pytest.fixture(scope="module")
def reference():
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=some_tokenizers.byte_level(), **SPECIAL
    )


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("conversation", sorted(CONVERSATIONS))
@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_prompts_are_those_of_transformers(reference, name, conversation, add_generation_prompt):
    messages = CONVERSATIONS[conversation]
    template = ChatTemplate.from_source(TEMPLATES[name], SPECIAL)
    try:
        expected = reference.apply_chat_template(
            [{"role": item.role, "content": item.content} for item in messages],
            chat_template=TEMPLATES[name],
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
        )
    except jinja2.TemplateError as refusal:
        with pytest.raises(ChatTemplateError, match=re.escape(str(refusal))):
            template.render(messages, add_generation_prompt=add_generation_prompt)
    else:
        assert template.render(messages, add_generation_prompt=add_generation_prompt) == expected


def test_what_a_template_refuses_is_told_in_its_own_words():
    template = ChatTemplate.from_source(GEMMA, SPECIAL)
    with pytest.raises(ChatTemplateError, match="System role not supported"):
        template.render([Message("system", "x"), Message("user", "y")])


def test_the_date_is_todays():
    template = ChatTemplate.from_source("{{ strftime_now('%Y') }}", {})
    assert template.render([]) in {str(dt.datetime.now().astimezone().year + i) for i in (0, -1)}


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__name__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ strftime_now.__globals__['dt'] }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ '{0.__class__.__name__}'.format(messages) }}",
        "{{ '{x.__class__.__name__}'.format_map({'x': messages}) }}",
        "{% set f = ''.format %}{{ '{0.__class__.__mro__}' | attr('format')(messages) }}",
        "{{ messages.append({'role': 'user', 'content': 'injected'}) }}",
        "{{ messages[0].update(content='injected') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_a_template_cannot_leave_the_sandbox(source):
    with pytest.raises(ChatTemplateError):
        ChatTemplate.from_source(source, SPECIAL).render([Message("user", "hi")])


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ messages | attr('__class__') }}",
        "{{ messages['__class__'] }}",
    ],
)
def test_private_attributes_are_undefined_in_a_template(source):
    # jinja2 prints what is undefined as nothing, and fails on its attributes.
    assert ChatTemplate.from_source(source, SPECIAL).render([Message("user", "hi")]) == ""


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ messages[0].content + 1 }}", "{{ a.b.c }}"])
def test_a_template_that_fails_says_so(source):
    with pytest.raises(ChatTemplateError):
        ChatTemplate.from_source(source, SPECIAL).render([Message("user", "hi")])


@pytest.mark.parametrize(
    "source",
    ["{% if %}", "{{ unclosed", "{% for x in y %}", "{{ 1 | no_such_filter }}", "x" * (1 << 21)],
)
def test_what_is_no_template_is_refused_when_it_is_loaded(source):
    with pytest.raises(ChatTemplateInvalid):
        ChatTemplate.from_source(source, SPECIAL)


@pytest.mark.parametrize("message", [Message("user", None), Message(1, "x"), Message("user", [])])
def test_messages_that_are_no_strings_are_refused(message):
    with pytest.raises(ChatTemplateError, match="strings"):
        ChatTemplate.from_source(CHATML, SPECIAL).render([message])
