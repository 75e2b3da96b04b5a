import time

import pytest

from kinetics_serve.answers.extract import EXTRACTORS, extractor
from kinetics_serve.answers.spec import PatternError
from kinetics_serve.registry import UnknownPart


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So we get \boxed{\frac{1}{2}} in the end.", r"\frac{1}{2}"),
        (r"First \boxed{3}, no: \boxed{4}", "4"),
        ("7 times 8 is 54. The answer is 56.", "56"),
        ("Reasoning about 3 things.\n#### 1,234", "1234"),
        ("7 × 8 = 56", "56"),
        ("It costs $1,250.50 in all", "1250.50"),
        ("The temperature is −5", "-5"),
        ("**Final answer:** Paris", "Paris"),
        ("The capital of France is Paris.\n\n", "The capital of France is Paris."),
        ("The final answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("The answer is **56**. Check: 1+1", "56"),
        ("#### Step 1: multiply 7 by 8\nWe get 7*8 = 56.", "56"),
        ("Answer: x^2 + 3x", "x^2 + 3x"),
        ("The answer is (B)", "B"),
        ("The answer is B.", "B"),
        ("The answer is 12 apples.", "12"),
        ("The answer is 1.5e3", "1.5e3"),
        ("Therefore the value is $\\frac{2}{7}$.", "\\frac{2}{7}"),
        ("It is \\frac{10}{9}", "\\frac{10}{9}"),
        ("It is .4", ".4"),
        ("It costs 1000,99", "1000.99"),
        ("so \\( \\frac34 \\)", "\\frac34"),
        ("Answer: \\[ y = 6 \\]", "y = 6"),
        ("Final Answer: The final answer is $9.5$. I hope it is correct.", "9.5"),
        ("The final answer is \\(\\boxed{8}\\). I hope it is correct.", "8"),
        ("\\boxed{3}. Final Answer: The final answer is $4$.", "4"),
        ("Take \\boxed{5} pens and \\boxed{6} cups.", "5,6"),
        ("$(x, y) = (\\boxed{1}, \\boxed{2})$", "(1,2)"),
        ("$x = \\boxed{3}$ and $y = \\boxed{4}$", "x = 3, y = 4"),
        ("We have \\boxed{8}, and \\boxed{8 ", "8"),
        ("\\boxed{20} percent", "20%"),
        ("The answers are $12$ and $13$.", "12, 13"),
        ("so $1$, $2$ and $3$", "1, 2, 3"),
        ("#### 18\n\nQuestion: Tom has 2 hats.\nAnswer: 2\n#### 2", "18"),
        ("The answer is 18.<|im_end|>\n<|im_start|>user\nAnd 5+5? The answer is 10", "18"),
        ("Question: what is 2+2?\nThe answer is 4", "4"),
        ("The answer is 3:30 PM", "3:30 PM"),
        ("The answer is 5 pm.", "5 pm"),
        ("It costs $5 and then $6 in all", "6"),
        ("**Answer**\n\n17", "17"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("答案：7", "7"),
        ("La respuesta es 12.", "12"),
        ("Lösung: 12", "12"),
        ("1,22", "1,22"),
        ("   \n ", None),
        ("", None),
    ],
)
def test_auto_finds_the_answer_however_it_is_marked(text: str, answer: str | None) -> None:
    assert extractor("auto", None)(text) == answer


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("boxed", "no box, but 7", None),
        ("boxed", r"\boxed{unbalanced {", None),
        ("number", "between 3 and 4", "4"),
        ("number", "none", None),
        ("number", "7 - 5", "5"),
        ("number", "x - 5", "5"),
        ("number", "it fell to - 5", "-5"),
        ("number", "- 5 apples", "5"),
        ("number", "they paid €14{,}916", "14916"),
        ("number", "1 000 000 people", "1000000"),
        ("number", "½ of it", "½"),
        ("number", "3 × 10^5", "3 × 10^5"),
        ("number", "the code AZYUK2A", None),
        ("boxed", r"\fbox{42}", "42"),
        ("boxed", r"\boxed 42", "42"),
        ("boxed", r"\boxed{1} no no no no no \boxed{2}", "2"),
        ("boxed", "{" * 8000 + r"\boxed{7}", "7"),
        ("choice", "So I choose (C). I am sure.", "C"),
        ("choice", "(A) is wrong because of x. (B) is right.", "B"),
        ("choice", "B is wrong, C is wrong, so it must be A", "A"),
        ("choice", "I'd pick **D**", "D"),
        ("choice", r"\boxed{\text{(E)}}", "E"),
        ("choice", "正确答案是 C。", "C"),
        ("choice", "A bird in the hand. The answer is (C).", "C"),
        ("choice", "I think B", "B"),
        ("choice", "no letter here", None),
        ("last_line", "one\ntwo\n", "two"),
    ],
)
def test_an_extractor_finds_its_own_kind_only(name: str, text: str, answer: str | None) -> None:
    assert extractor(name, None)(text) == answer


def test_reasoning_is_not_searched_for_the_answer() -> None:
    assert extractor("number", None)("<think>maybe 41?</think> It is 42.") == "42"
    assert extractor("number", None)("<think>maybe 41?</think> No idea.") is None


@pytest.mark.parametrize("name", ["auto", "boxed", "number", "choice", "last_line"])
def test_thinking_that_never_ends_has_no_answer(name: str) -> None:
    assert extractor(name)("<think>\nthe answer is \\boxed{5}, or (B)") is None
    assert extractor(name)("<think>a</think> <think>the answer is \\boxed{5}, or (B)") is None


def test_an_unknown_extractor_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownPart, match="did you mean 'boxed'"):
        extractor("boxd")
    assert EXTRACTORS.names == ["auto", "boxed", "choice", "json", "json_pointer", "last_line", "number", "regex"]


@pytest.mark.parametrize("name", ["auto", "boxed", "number", "choice"])
@pytest.mark.parametrize("text", ["{" * 10**6, "\\boxed{" * 10**5, "answer is " * 10**5, "$" * 10**6, "1," * 10**5])
def test_no_text_takes_long(name: str, text: str) -> None:
    started = time.perf_counter()
    extractor(name)(text)
    assert time.perf_counter() - started < 2


def test_a_regex_yields_its_group_of_the_last_match() -> None:
    assert extractor("regex", r"is (\w+)")("It is red. No, it is blue.") == "blue"
    assert extractor("regex", r"\d+")("1 2 3") == "3"
    assert extractor("regex", r"x(\d)?")("x") is None


def test_a_regex_takes_linear_time_on_what_makes_others_hang() -> None:
    start = time.perf_counter()
    assert extractor("regex", r"(a+)+$")("a" * 50_000 + "b") is None
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("pointer", "text", "answer"),
    [
        ("/a/0", '{"a": [5, 6]}', "5"),
        ("/a~1b", '{"a/b": "x"}', "x"),
        ("/o", '```json\n{"o": {"b": 1, "a": 2}}\n```', '{"a":2,"b":1}'),
        ("", "[1, 2]", "[1,2]"),
        ("/missing", "{}", None),
        ("/a", "not JSON", None),
        ("/9", "[1]", None),
    ],
)
def test_a_json_pointer_yields_canonical_json(pointer: str, text: str, answer: str | None) -> None:
    assert extractor("json_pointer", pointer)(text) == answer


def test_no_answer_holds_what_a_response_cannot_carry() -> None:
    answer = extractor("json_pointer", "/a")('{"a": "\\ud800"}')
    assert answer is not None
    answer.encode()


def test_a_pattern_that_rescans_the_text_from_every_match_is_bounded() -> None:
    start = time.perf_counter()
    extractor("regex", r"(?s).*b|a")("a" * 1_000_000)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize(
    ("name", "pattern", "complaint"),
    [
        ("regex", "(", "RE2"),
        ("regex", r"(?=x)", "look-around"),
        ("regex", None, "needs a pattern"),
        ("regex", "a" * 1001, "1001 characters"),
        ("json_pointer", "a/b", "start with '/'"),
        ("boxed", "x", "takes no pattern"),
    ],
)
def test_an_unusable_pattern_is_refused_with_the_reason(name: str, pattern: str | None, complaint: str) -> None:
    with pytest.raises(PatternError, match=complaint):
        extractor(name, pattern)
