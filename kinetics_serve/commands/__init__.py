"""The commands that measure, replay and plan."""
