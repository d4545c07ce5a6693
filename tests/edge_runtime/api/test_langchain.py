"""LangChain's chat model of OpenAI, in a chain."""

from __future__ import annotations

import openai
import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from edge_runtime import Message, TextGenerator


def test_a_chain_says_what_the_library_says(api, demo_bundle, trunk) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Be brief."), ("human", "Tell me a story about {what}.")]
    )
    model = ChatOpenAI(model="demo", base_url=api.url, api_key="none", max_tokens=24, max_retries=0)
    chain = prompt | model | StrOutputParser()
    with TextGenerator.open(demo_bundle, trunk.url, codec="fp32") as generator:
        messages = [Message("system", "Be brief."), Message("user", "Tell me a story about a fox.")]
        expected = generator.generate(messages, max_new_tokens=24).text
    assert chain.invoke({"what": "a fox"}) == expected
    pieces = list(chain.stream({"what": "a fox"}))
    assert "".join(pieces) == expected
    assert len(pieces) > 5


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_what_would_not_be_honoured_is_refused(api, method) -> None:
    model = ChatOpenAI(model="demo", base_url=api.url, api_key="none", max_retries=0)
    schema = {"title": "Fox", "type": "object", "properties": {"name": {"type": "string"}}}
    with pytest.raises(openai.BadRequestError, match=r"response_format|tools"):
        model.with_structured_output(schema, method=method).invoke("Tell me of a fox.")
