"""The policies that spend a budget, and what they need to judge samples. Pure: no I/O, no clock, no HTTP."""
