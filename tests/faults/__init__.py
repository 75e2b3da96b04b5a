"""Faults from outside, and whether every answer is booked at its bill nevertheless: `make faults`."""
