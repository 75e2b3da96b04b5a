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
    ("text", "answer"),
    [
        ("The answer is 3 hours 45 minutes.", "3 hours 45 minutes"),
        ("The answer is 3 hours and 45 minutes, in all.", "3 hours and 45 minutes"),
        ("The answer is 3 hours.", "3"),
        ("The answer is 6 May 2024.", "6 May 2024"),
        ("The answer is 3 to 1.", "3 to 1"),
        ("The answer is 3 out of 5.", "3 out of 5"),
        ("The answer is 3 in 4.", "3 in 4"),
        ("The answer is 6.02 x 10^23.", "6.02 × 10^23"),
        ("The answer is $1.5 million.", "1.5 million"),
        ("The answer is 7 a.m.", "7 a.m."),
        ("The answer is 5 dollars and 25 cents.", "5 dollars and 25 cents"),
        ("Answer: 5 feet 6 inches", "5 feet 6 inches"),
        ("The answer is 12 apples and 3 pears.", "12 apples and 3 pears"),
        ("The answer is 5 squared.", "5 squared"),
        ("The answer is 44 BC.", "44 BC"),
        ("The answer is 5!.", "5!"),
        ("The answer is 45 apples for each of the 3 children.", "45"),
        ("The answer is 12 apples in 3 bags.", "12"),
    ],
)
def test_a_marked_number_is_not_cut_out_of_a_larger_answer(text: str, answer: str) -> None:
    assert extractor("auto")(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So the area is 25 cm^2.", "25"),
        ("The speed is 9.8 m/s^2.", "9.8"),
        ("So the area is 49 m^2.", "49"),
        ("The length is 2√3.", "2√3"),
        ("The line is y = 2x + 1.", "y = 2x + 1"),
        ("The function is f(x) = 2x + 1.", "f(x) = 2x + 1"),
        ("The sum is 3 + 4i.", "3 + 4i"),
        ("The ratio is 3:4.", "3:4"),
        ("The point is (7, 4).", "(7, 4)"),
        ("The interval is (2, 5].", "(2, 5]"),
        ("The time is 3:45 PM.", "3:45 PM"),
        ("It was on July 4, 1776.", "July 4, 1776"),
        ("So it takes 3 hours and 45 minutes.", "3 hours and 45 minutes"),
        ("The area is 12π.", "12π"),
        ("It is 3.5×10⁻⁴", "3.5×10⁻⁴"),
        ("It is 1 3/4", "1 3/4"),
        ("Thus, x = 5 or x = -3.", "x = 5, x = -3"),
        ("So a = 3.", "3"),
        ("Hence x > 3", "x > 3"),
        ("So 36 apples = 12 × 3 = 36.", "36"),
        ("He is 1.75m tall", "1.75"),
        ("It is 5°C", "5"),
        ("Plan A - 5 people", "5"),
        ("It rose from 5 to 10.", "10"),
        ("Hence $n=5$, since $n>0$", "n=5"),
        ("Thus she makes $18 per day (9 eggs × $2).", "18"),
        ("The total is 45 (see 1).", "45"),
        ("So the total is 45.\n\nLet me know if you need help with question 2!", "45"),
        ("**46**\n\nIn step 2 we added.", "46"),
        ("45\n\nExplanation: 40 would be 8 rows.", "45"),
        ("Yes. Since 7 has only 2 divisors, it is prime.", "Yes"),
        ("No, 7 has 2 divisors.", "No"),
        ("No. 5 is the best of 7.", "7"),
        ("Answer: Yes because 7 has 2 divisors", "Yes"),
    ],
)
def test_an_unmarked_number_is_taken_with_all_that_it_is_a_part_of(text: str, answer: str) -> None:
    assert extractor("auto")(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"$x = -\boxed{3}$", "-3"),
        (r"It is -\boxed{3}.", "-3"),
        (r"- \boxed{3}", "3"),
        (r"5 - \boxed{3}", "3"),
        (r"\boxed{3} + \boxed{4}i", "3 + 4i"),
        (r"\boxed{3} + \boxed{4} = 7", "3,4"),
        (r"$\frac{\boxed{3}}{\boxed{4}}$", r"\frac{3}{4}"),
        (r"\boxed3/\boxed4", "3/4"),
        (r"\boxed{3} : \boxed{4}", "3 : 4"),
        (r"\boxed{3}\sqrt2", r"3\sqrt2"),
        (r"$\boxed{12}^{\circ}$", r"12^{\circ}"),
        (r"$x^{\boxed{3}}$", "3"),
        (r"$n \ge \boxed{5}$", "5"),
        (r"\boxed{45}. Hmm, correction: the answer is 54.", "54"),
        (r"I'll write it as \boxed{answer}. So: 12", "12"),
        (r"\boxed{Answer: 12}", "12"),
        (r"\boxed{\text{The answer is }3}", "3"),
    ],
)
def test_boxes_are_read_with_the_formula_that_they_are_parts_of(text: str, answer: str) -> None:
    assert extractor("auto")(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 7</s>", "7"),
        ("#### B", "B"),
        ("#### Yes", "Yes"),
        ("#### (3, 4)", "(3, 4)"),
        ("The answer is Paris<end_of_turn>", "Paris"),
        ("<answer> B </answer>", "B"),
        ("<answer>\nParis\n</answer>", "Paris"),
        ("We get 6, then 7.\n<answer>7</answer> (checked in 2 ways)", "7"),
        ("The answer is only 45", "45"),
        ("The answer is the number 45.", "45"),
        ("The answer is as follows: 45", "45"),
        ("The answer is below.\n\n45", "45"),
        ("The answer is not 44. It is 45.", "45"),
        ("The answer is not defined.", "not defined"),
        ("Answer: 40+5=45 apples", "45"),
        ("Ans: 45 (2 steps)", "45"),
        ("Das Ergebnis ist 45, also 5 mehr als 40.", "45"),
        ("La respuesta correcta es la B.", "B"),
        ("正解は B です。", "B"),
        ("답: 45 (2)", "45"),
        ("答案是45个苹果。", "45"),
        ("答えは45個です。", "45"),
        ("정답은 45입니다.", "45"),
        ("答案是45万。", "45万"),
        ("答えはBです。", "B"),
        ("故选B。", "B"),
        ("الجواب: 45 (الخطوة 2)", "45"),
        ("الإجابة هي ٤٥", "45"),
        ("答え：４５", "45"),
        ('{"answer": 45, "steps": 3}', "45"),
        ('Here it is:\n```json\n{"answer": 45}\n```\nIt has 1 field.', "45"),
        ('{"x": 3, "y": 4}', '{"x":3,"y":4}'),
    ],
)
def test_answers_are_marked_in_many_ways_and_languages(text: str, answer: str) -> None:
    assert extractor("auto")(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"[THINK]so \boxed{6}[/THINK]The total is 7.", "7"),
        (r"[THINK]so \boxed{6}, no wait", None),
        (r"<seed:think>\boxed{6}</seed:think>The total is 7.", "7"),
        (r"◁think▷\boxed{6}◁/think▷The total is 7.", "7"),
        (r"<|START_THINKING|>\boxed{6}<|END_THINKING|><|START_RESPONSE|>The total is 7.<|END_RESPONSE|>", "7"),
        (r"<thought>\boxed{6}</thought>The total is 7.", "7"),
        (r"<|begin_of_thought|>\boxed{6}<|end_of_thought|>The total is 7.", "7"),
        (r"<|channel|>analysis<|message|>\boxed{6}?<|end|><|start|>assistant<|channel|>final<|message|>It is 7.", "7"),
        (r"<|channel|>analysis<|message|>We try \boxed{6} ...", None),
        ("In HTML the <think> tag isn't valid. The answer is 7.", "7"),
    ],
)
def test_every_familys_reasoning_is_left_out(text: str, answer: str | None) -> None:
    assert extractor("auto")(text) == answer


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
        ("number", "5 (GPT-4)", "5"),
        ("number", "an area of 25 cm^2", "25"),
        ("number", "４５", "45"),
        ("number", "٤٥", "45"),
        ("number", "3⁄4", "3⁄4"),
        ("number", "1 3/4", "1 3/4"),
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
@pytest.mark.parametrize(
    "text",
    [
        "{" * 10**6,
        "\\boxed{" * 10**5,
        "answer is " * 10**5,
        "$" * 10**6,
        "1," * 10**5,
        "#### x\n" * 10**5,
        "<answer>" + " " * 10**5,
    ],
)
def test_no_text_takes_long(name: str, text: str) -> None:
    started = time.process_time()
    extractor(name)(text)
    assert time.process_time() - started < 2


def test_a_regex_yields_its_group_of_the_last_match() -> None:
    assert extractor("regex", r"is (\w+)")("It is red. No, it is blue.") == "blue"
    assert extractor("regex", r"\d+")("1 2 3") == "3"
    assert extractor("regex", r"x(\d)?")("x") is None


def test_a_regex_takes_linear_time_on_what_makes_others_hang() -> None:
    start = time.process_time()
    assert extractor("regex", r"(a+)+$")("a" * 50_000 + "b") is None
    assert time.process_time() - start < 2


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
    start = time.process_time()
    extractor("regex", r"(?s).*b|a")("a" * 1_000_000)
    assert time.process_time() - start < 3


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


@pytest.mark.parametrize("name", ["auto", "number", "choice", "json"])
@pytest.mark.parametrize(
    "repeated", [" ", "\n", "* ", "$ ", "{", "1,", "- ", "the answer is ", "A. ", "x = ", "5 ", "\\[ "]
)
def test_no_text_takes_long_to_read(name: str, repeated: str) -> None:
    """What is quadratic takes minutes here."""
    text = repeated * (130_000 // len(repeated))
    began = time.process_time()
    extractor(name)(text)
    assert time.process_time() - began < 3
