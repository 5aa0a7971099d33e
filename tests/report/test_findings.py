"""What a pattern of numbers is said to mean."""

from unigap.arms import Question

TEXT: Question = ("understanding", "normal")
TEXT_THINK: Question = ("understanding", "think")
DRAW: Question = ("generation", "normal")
DRAW_THINK: Question = ("generation", "think")
ORACLE: Question = ("generation", "oracle")


def fill(paper, family: str, *, units: int = 100, **right: int) -> None:
    """Answer a family so that the first so many of each question are right."""
    items = paper.add_items(family, units)
    questions = {"text": TEXT, "text_think": TEXT_THINK, "draw": DRAW, "draw_think": DRAW_THINK, "oracle": ORACLE}
    for name, count in right.items():
        paper.answer(items, questions[name], "y" * count + "n" * (units - count))


def test_reasoning_that_does_not_reach_the_drawing_is_said_in_one_sentence_for_all_families(paper):
    for family in ("math1", "math2", "math3"):
        fill(paper, family, text=95, text_think=99, draw=24, draw_think=98, oracle=99)
    assert paper.summary().meaning == [
        "Reasoning does not reach the drawing: with a written thought it draws math1-3 at 98%, without at 24% "
        "(guessing: 20-25%), while it answers 99% in text.",
    ]


def test_guessing_at_once_in_text_is_said_first(paper):
    fill(paper, "math1", text=27, text_think=99, draw=24, draw_think=98, oracle=99)
    first, second = paper.summary().meaning
    assert first == (
        "Answering math1 at once in text is near guessing (27%; guessing: 25%): there the normal gap says "
        "little; read the think columns."
    )
    assert second.startswith("Reasoning does not reach the drawing")


def test_a_drawing_that_fails_from_the_caption_is_about_drawing(paper):
    fill(paper, "math1", text=95, text_think=99, draw=24, draw_think=30, oracle=40)
    assert paper.summary().meaning[0].startswith("It cannot reliably draw math1 even from the true caption (40%)")


def test_text_near_chance_means_it_does_not_know(paper):
    fill(paper, "math1", text=25, text_think=30, draw=24, draw_think=30, oracle=99)
    assert paper.summary().meaning == [
        "It cannot answer math1 in text either: right in 30% at best (guessing: 25%), so there is nothing for a "
        "drawing to fall short of.",
    ]


def test_gaps_of_either_sign_and_none(paper):
    fill(paper, "theirs", text=90, draw=40, oracle=95)
    assert paper.summary().meaning == ["It understands theirs better than it draws: a gap of +50 points."]
    fill(paper, "other", text=60, draw=95)
    fill(paper, "third", text=95, draw=95)
    assert paper.summary().meaning[1:] == [
        "It draws other better than it answers in text: a gap of -35 points.",
        "It draws third as well as it answers (95% drawn; gap within 10 points).",
    ]


def test_few_units_tell_nothing(paper):
    fill(paper, "theirs", units=5, text=4, draw=3)
    assert paper.summary().meaning == ["For theirs there are not enough units to tell the directions apart."]


def test_names_join_numbered_families(paper):
    for family in ("math1", "math2", "math3", "mapping1", "mapping3", "forward"):
        fill(paper, family, units=5, text=4, draw=3)
    assert "For math1-3, mapping1, mapping3 and forward there are" in paper.summary().meaning[-1]


def test_one_direction_alone_says_nothing(paper):
    fill(paper, "math1", draw=24)
    assert paper.summary().meaning == []
