"""Faults from outside, and whether every answer is booked at its bill nevertheless: `make faults`.

What is tried elsewhere, because it needs a clock that can be set, a real engine, or one process only:

| fault | test |
|---|---|
| kill -9 after the lease was renewed: what was last noted is booked | `tests/ledger/test_crash.py` |
| clocks that step back or forward, over a month's end, by days, with leases in flight | `tests/ledger/test_leases.py`, `tests/ledger/test_quotas.py` |
| a burst of connections over three workers, their shares within a factor of two | `tests/server/test_workers.py` |
| bodies that drip, answers that nobody reads | `tests/server/test_limited_http.py` |
| EngineCore, guardian and front-end of a real engine are killed | `tests/e2e/test_restart.py`, `tests/engine/embedded/test_guardian.py`, `tests/engine/embedded/test_supervise.py` |
| a sample that fails, in each of the ways in which one can | `tests/contracts/test_samples.py` |
| a plain stream without end | `tests/contracts/test_plain_streams.py` |
"""  # noqa: E501
