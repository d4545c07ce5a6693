"""Turning tokens into text one by one.

A token is not a text: characters are spread over several tokens, and whether a token begins with a
space depends on what stands before it. So each new token is decoded together with some context, and
what it adds to the context's text is what is shown.

The tokenizers library has a ``DecodeStream`` for that. It is not used since it keeps what it holds
back to itself, so that a reply's unfinished end would be lost; shows the prompt if that ends inside
a character; and fails where bytes that are no character follow on some that were.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.tokenizer import Tokenizer

__all__ = ["Detokenizer"]

_REPLACEMENT = "\ufffd"  # what decoders put where bytes are not (yet) a character


class Detokenizer:
    """The text that generated tokens add to a prompt.

    Pieces hold whole characters only and no special tokens. Put together they are the text of
    prompt and reply without the text of the prompt.

    Args:
        tokenizer: Decodes the tokens.
        prompt_ids: What the reply follows on; may be empty.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        # The window is what is decoded: its first part is context, shown before. The whole prompt
        # is context at first, because only its start shows what its last tokens mean.
        self._window = list(prompt_ids)
        self._context = len(self._window)
        self._shown = tokenizer.decode(self._window)
        self._context_is_whole = not self._shown.endswith(_REPLACEMENT)

    def push(self, token_id: int) -> str:
        """Take the next token.

        Returns:
            The text that it completed; empty if it is special or ends inside a character.
        """
        self._window.append(token_id)
        text = self._tokenizer.decode(self._window)
        whole = text.rstrip(_REPLACEMENT)
        if len(whole) < len(text):
            # It ends inside a character, or with damaged bytes: the rest is shown once it is whole.
            if len(whole) <= len(self._shown) or not whole.startswith(self._shown):
                return ""
            new, self._shown = whole[len(self._shown) :], whole
            return new
        new = self._addition(text)
        if new:
            # A short window keeps decoding cheap. It begins where a character does, and with tokens
            # that have text, so that what follows is not taken for the beginning of a text.
            if self._context_is_whole:
                self._window = self._window[self._context :]
            self._context_is_whole = True
            self._context = len(self._window)
            self._shown = self._tokenizer.decode(self._window)
        return new

    def flush(self) -> str:
        """What was held back: U+FFFD for a character that was not finished."""
        text = self._tokenizer.decode(self._window)
        new = self._addition(text)
        self._shown = text
        return new

    def _addition(self, text: str) -> str:
        if text.startswith(self._shown):
            return text[len(self._shown) :]
        # The prompt ended inside a character, and the reply completed it.
        whole = self._shown.rstrip(_REPLACEMENT)
        if text.startswith(whole):
            return text[len(whole) :]
        # Bytes that are no character made the decoder give up others that it had taken for one.
        # What was shown stays; the new tokens count by themselves.
        return self._tokenizer.decode(self._window[self._context :])
