from kinetics_serve.answers.sandbox import Limits
from kinetics_serve.evaluation.programs import passes
from kinetics_serve.evaluation.tasks import ProgramTest

SUM = "print(sum(map(int, input().split())))"


def test_a_right_program_passes_and_a_wrong_one_fails() -> None:
    tests = [ProgramTest("1 2\n", "3\n"), ProgramTest("10 20 30\n", "60")]
    assert passes(SUM, tests)
    assert not passes("print(3)", tests)
    assert not passes("raise SystemExit(1)", tests)
    assert not passes("not python", tests)


def test_numbers_are_compared_by_value_and_spaces_at_the_ends_ignored() -> None:
    assert passes("print('  1.50 2 ')", [ProgramTest("", "1.5 2.0\n")])
    assert not passes("print('1.5')\nprint(2)", [ProgramTest("", "1.5 2\n")])


def test_a_function_is_called_with_the_values_on_its_lines() -> None:
    program = "def add(a, b):\n    return a + b"
    assert passes(program, [ProgramTest("[1]\n[2]", "[1, 2]", "add"), ProgramTest("3\n4", "7", "add")])
    assert not passes(program, [ProgramTest("3\n4", "8", "add")])
    assert not passes(program, [ProgramTest("3\n4", "", "add")])


def test_an_endless_loop_does_not_pass() -> None:
    assert not passes("while True: pass", [ProgramTest("", "")], Limits(cpu_s=1, wall_s=3))
