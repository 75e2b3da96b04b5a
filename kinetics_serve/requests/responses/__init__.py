"""The Responses API: its input as a chat completion, and the answer in its words."""
