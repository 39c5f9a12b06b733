"""Tokenizing for people who do not have the tokenizer."""

from __future__ import annotations

from transom.errors import InvalidRequest
from transom.schema.tokens import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse
from transom.services.house import House


def tokenize(house: House, body: TokenizeRequest) -> TokenizeResponse:
    """Text, or a conversation, to token ids."""
    backend = house.tokenizing(body.model)
    text = body.prompt
    special = True if body.add_special_tokens is None else body.add_special_tokens
    if body.messages is not None:
        if not backend.tokenizer.has_chat_template:
            raise InvalidRequest(f"{backend.served.name} has no chat template.", param="messages")
        text = backend.tokenizer.render([message.plain() for message in body.messages])
        special = bool(body.add_special_tokens)
    tokens = backend.tokenizer.encode(text or "", add_special_tokens=special)
    return TokenizeResponse(
        count=len(tokens),
        max_model_len=backend.served.deployment.policy.max_model_len,
        tokens=tokens,
        token_strs=[backend.tokenizer.token_text(t) for t in tokens] if body.return_token_strs else None,
    )


def detokenize(house: House, body: DetokenizeRequest) -> DetokenizeResponse:
    """Token ids to text, special tokens included."""
    backend = house.tokenizing(body.model)
    vocabulary = backend.tokenizer.vocab_size
    for index, token in enumerate(body.tokens):
        if token >= vocabulary:
            raise InvalidRequest(
                f"Token {token} does not exist; the vocabulary has {vocabulary}.", param=f"tokens.{index}"
            )
    return DetokenizeResponse(prompt=backend.tokenizer.decode(body.tokens))
