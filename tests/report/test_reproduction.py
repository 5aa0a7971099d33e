"""Claims and rules: what an interval says, and the page and table that show it."""

import json
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigap.report.reproduction import (
    Claim,
    Estimate,
    Example,
    Picture,
    Reproduction,
    Rule,
    Stage,
    judge_claims,
    on_axis,
    show,
    write_json,
    write_markdown,
    write_page,
)
from unigap.report.three_papers import CLAIMS, NOTES, PAPERS

EVIL = "<script>alert(1)</script>|\"'&"
ABOVE, BELOW, WITHIN = Rule(side="above"), Rule(side="below", bound=0.05), Rule(side="within", margin=0.1)


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        (ABOVE, 0.01, 0.3, "agrees"),
        (ABOVE, -0.3, -0.01, "differs"),
        (ABOVE, -0.1, 0.3, "can't tell"),
        (ABOVE, 0.0, 0.3, "can't tell"),  # it touches the bound
        (ABOVE, -0.3, 0.0, "can't tell"),
        (BELOW, -0.2, 0.04, "agrees"),  # above zero in part, and still under the bound
        (BELOW, 0.06, 0.2, "differs"),
        (BELOW, 0.0, 0.2, "can't tell"),
        (WITHIN, -0.1, 0.1, "agrees"),
        (WITHIN, 0.02, 0.09, "agrees"),  # not zero, and yet no change worth the name
        (WITHIN, -0.11, 0.05, "can't tell"),
        (WITHIN, -0.3, 0.3, "can't tell"),  # too wide, whatever it is centered on
        (WITHIN, 0.11, 0.4, "differs"),
        (WITHIN, -0.4, -0.11, "differs"),
    ],
)
def test_a_rule_says_what_an_interval_means(rule: Rule, low: float, high: float, verdict: str):
    assert rule.verdict(low, high) == verdict


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-0.5, 0.5))
def test_above_and_below_never_agree_on_the_same_interval(a: float, b: float, bound: float):
    low, high = sorted((a, b))
    found = {Rule(side=side, bound=bound).verdict(low, high) for side in ("above", "below")}
    assert found in ({"agrees", "differs"}, {"can't tell"})


def test_no_interval_is_no_verdict():
    for low, high in ((0.2, 0.1), (float("nan"), 0.1), (0.1, float("nan"))):
        with pytest.raises(ValueError, match="no interval"):
            ABOVE.verdict(low, high)


def test_a_rule_has_a_margin_only_where_it_means_something():
    for side, margin in (("within", 0.0), ("above", 0.1)):
        with pytest.raises(ValueError, match="margin"):
            Rule(side=side, margin=margin)  # type: ignore[arg-type]


def test_the_zone_is_the_claimed_side_of_the_axis():
    # The axis of points runs from -1 to 1: zero is at one half, .05 at .525, and +-.1 at .45 and .55.
    assert ABOVE.zone("points") == (0.5, 1.0)
    assert BELOW.zone("points") == (0.0, pytest.approx(0.525))
    assert WITHIN.zone("points") == (pytest.approx(0.45), pytest.approx(0.55))
    assert on_axis(1.5, "logits") == 0.75 and on_axis(9.0, "logits") == 1.0  # 3 logits are the end


def test_numbers_are_shown_with_their_sign_and_zero_without():
    assert show(0.484, "points") == "+48" and show(-0.02, "points") == "\N{MINUS SIGN}2"
    assert show(-0.004, "points") == "0" and show(0.0, "points") == "0"
    assert show(1.234, "logits") == "+1.23"


# ---- the table of the three papers -----------------------------------------------------------------------------------


def test_every_paper_has_claims_and_every_claim_a_paper_a_number_and_a_rule():
    assert {claim.paper for claim in CLAIMS} == set(PAPERS) and len(PAPERS) == 3
    for paper in PAPERS:
        assert sum(claim.paper == paper for claim in CLAIMS) >= 5
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS) and 12 <= len(CLAIMS) <= 24
    for claim in CLAIMS:
        assert claim.text and claim.ours and claim.rule.words(claim.scale)
        # A number says where it is from; that there is none, or that the row is ours, is said too.
        assert any(word in claim.theirs for word in ("note", "figure", "abstract", "our control")), claim.key


def test_claims_and_estimates_must_fit_one_another():
    estimates = {claim.key: number() for claim in CLAIMS}
    assert len(judge_claims(CLAIMS, estimates)) == len(CLAIMS)
    with pytest.raises(ValueError, match="thought"):
        judge_claims(CLAIMS, {key: value for key, value in estimates.items() if key != "thought"})
    with pytest.raises(ValueError, match="stray"):
        judge_claims(CLAIMS, estimates | {"stray": number()})


# ---- the page --------------------------------------------------------------------------------------------------------


def number(value: float = 0.2, half: float = 0.1, detail: str = "") -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, num_units=60, num_clusters=20, detail=detail)


def page(text: str = "harmless") -> Reproduction:
    claims = [
        Claim(key=key, paper=text, text=f"claim {key} {text}", theirs=f"theirs {text}", ours=f"ours {text}", rule=ABOVE)
        for key in ("a", "b", "c")
    ]
    estimates = {"a": number(0.2, detail=text), "b": number(-0.2), "c": number(0.0)}
    return Reproduction(
        title=f"title {text}",
        papers={text: f"reference {text}"},
        rows=judge_claims(claims, estimates),
        facts=[("command", text)],
        stages=[Stage(name=text, what=text, minutes=1.5, sessions=2)],
        notes=[f"note {text}"],
        examples={
            f"heading {text}": [
                Example(prompt=text, pictures=[Picture(uri="data:image/png;base64,", label=text, right=True)])
            ]
        },
        made=date(2026, 1, 2),
    )


def test_the_page_begins_with_the_verdicts_counted():
    assert page().sentence == "1 of 3 claims agree, 1 differ, 1 cannot be told."
    html = write_page(page())
    assert page().sentence in html and html.index(page().sentence) < html.index("claim a")
    for verdict in ("agrees", "differs", "can&#39;t tell"):
        assert f">{verdict}</span>" in html


def test_the_page_escapes_everything_and_runs_nothing_else():
    html = write_page(page(EVIL))
    assert EVIL not in html and "<script>alert" not in html
    assert html.count("<script") == 1 and "default-src &#39;none&#39;" in html and "onerror" not in html
    assert 'href="%3Cscript%3E' in html  # a folder's name cannot leave its attribute


def test_markdown_has_a_row_a_claim_and_cannot_be_broken_by_a_cell():
    text = write_markdown(page("a|b\nc"))
    rows = [line for line in text.splitlines() if line.startswith("| claim ")]
    assert len(rows) == 4  # the header, whose first column is "claim", and three claims
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)
    assert "**+20** [+10, +30]: a\\|b c |" in text and "can't tell" in text


def test_the_numbers_are_kept_as_data_with_their_rule():
    data = json.loads(json.dumps(write_json(page()), allow_nan=False))
    assert data["counts"] == {"agrees": 1, "differs": 1, "can't tell": 1}
    assert data["claims"][0]["estimate"]["low"] == pytest.approx(0.1)
    assert data["claims"][0]["rule"].startswith("agrees if the whole interval lies above 0")


def test_what_the_page_says_of_itself_is_there():
    assert any("not over training runs" in note.lower() for note in NOTES)
