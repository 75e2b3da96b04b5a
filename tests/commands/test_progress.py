"""What long commands say of how far they are."""

from kinetics_serve.commands.progress import Lines


def test_a_line_comes_every_half_minute_with_the_speed_of_this_run_and_the_time_left() -> None:
    now, said = [0.0], list[str]()
    lines = Lines("task", said.append, lambda: now[0])
    for second, done in ((1, 100), (29, 110), (31, 120), (45, 130), (62, 140)):
        now[0] = float(second)
        lines(done, 220, tokens=second * 50)
    assert said == [
        "task: 120 of 220, 50 tokens/s, 2.6 minutes left",
        "task: 140 of 220, 50 tokens/s, 2.1 minutes left",
    ]


def test_a_command_that_is_soon_done_says_nothing() -> None:
    said = list[str]()
    lines = Lines("task", said.append, lambda: 0.0)
    lines(1, 2)
    lines(2, 2)
    assert said == []
