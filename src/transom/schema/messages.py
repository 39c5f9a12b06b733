"""Conversations: messages as people write them, and as the chat template takes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from transom.schema.wire import Body, text_or_list


class TextPart(Body):
    """One part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | list[TextPart], BeforeValidator(text_or_list)]
    name: str | None = Field(default=None, max_length=64, description="Handed to the chat template.")

    def plain(self) -> dict[str, Any]:
        """As the chat template takes it: text parts joined, absent fields left out."""
        content = (
            self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        )
        turn = {"role": self.role, "content": content}
        return turn if self.name is None else turn | {"name": self.name}
