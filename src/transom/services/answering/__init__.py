"""Answers: chats, completions, scores, tokens, and the seeds that they are drawn by."""
