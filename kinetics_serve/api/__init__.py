"""The HTTP front-end: OpenAI's API, plus a budget."""
