"""Answers: taken from a text, compared, and sorted into groups. Pure, but for the process that does algebra."""
