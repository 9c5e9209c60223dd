"""Names that edge and service both read."""

from __future__ import annotations

THINKING_SUFFIX = "-thinking"
"""The end of a public model's name that asks for reasoning, and for content as an array with a
part for the reasoning. Such a name has the price, limits and key scope of the name without it."""

CONTENT_HEADER = "x-pomogator-content"
"""With `text`, from a client or from the service: the content of the answer is a string, also of a
`-thinking` name."""

TEXT_CONTENT = "text"
"""The only value of that header."""
