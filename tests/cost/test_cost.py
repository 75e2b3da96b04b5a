from kinetics_serve.cost import ZERO, Cost


def test_costs_add_and_subtract_exactly() -> None:
    huge = 10**30 + 1
    assert Cost(huge, 1) + Cost(2, huge) == Cost(huge + 2, huge + 1)
    assert Cost(huge, huge) - Cost(huge, 1) == Cost(0, huge - 1)
    assert sum([Cost(1, 2), Cost(3, 4)], start=ZERO) == Cost(4, 6)


def test_eflops_are_flops_plus_bytes_times_intensity() -> None:
    assert Cost(1000, 10).eflops(562.5) == 1000 + 10 * 562.5
