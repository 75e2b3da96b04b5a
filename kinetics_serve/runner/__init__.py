"""Runs a policy: reserves what samples may cost, launches and cancels them, settles what they did cost."""
