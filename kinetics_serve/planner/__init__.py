"""Turns what a client asks for into what to run."""
