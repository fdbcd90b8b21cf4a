"""A conversation with a running model, in a terminal or through a pipe."""

from deploytk.chat.answer import Sampling
from deploytk.chat.conversation import Conversation, Turn
from deploytk.chat.loop import Chat, Screen
from deploytk.chat.reading import line_reader

__all__ = ["Chat", "Conversation", "Sampling", "Screen", "Turn", "line_reader"]
