"""The claims of the three papers that recipes/three_papers.py tests, with the papers' numbers and the rules.

Rates are shares of items; differences are printed in points. No body of the three papers could be read when this was
written: numbers come from their abstracts, figures, released code and from third-party notes, and each says which.
"Note" marks a number from a third-party reading note, which may be garbled.
"""

from collections.abc import Mapping
from typing import Final

from unigap.report.reproduction import Claim, Rule

UNISANDBOX, GAPEVAL, GVU = "UniSandbox", "GapEval", "GvU"

PAPERS: Final[Mapping[str, str]] = {
    UNISANDBOX: "Niu et al. 2025, arXiv 2511.20561",
    GAPEVAL: "Wang et al. 2026, arXiv 2602.02140",
    GVU: "Pan et al. 2026, arXiv 2603.06043",
}

NO_TRANSFER = Rule(side="within", margin=0.10)
"""Ten points either way: ten of the twelve changes across directions in GapEval's figure are within, and every gain of
text training in text (.12 and more) is outside."""
BEYOND_GUESSING: Final = 0.05
"""What guessing may be exceeded by and still be called guessing."""

CLAIMS: Final[tuple[Claim, ...]] = (
    Claim(
        key="chance",
        paper=UNISANDBOX,
        text="Asked to draw the result of arithmetic or of rules at once, a model does no better than guessing",
        theirs="BAGEL .03 over the reasoning tasks (note)",
        ours="drawn at once minus guessing; arithmetic and rules, three difficulties each",
        rule=Rule(side="below", bound=BEYOND_GUESSING),
    ),
    Claim(
        key="text_over_drawing",
        paper=UNISANDBOX,
        text="The same items are answered better in text than drawn",
        theirs="abstract; no number found",
        ours="text minus drawing, both at once, on the same items",
        rule=Rule(side="above"),
    ),
    Claim(
        key="thought",
        paper=UNISANDBOX,
        text="A thought before drawing lifts it",
        theirs="BAGEL .03 \N{RIGHTWARDS ARROW} .51 (note)",
        ours="drawn after a thought minus drawn at once",
        rule=Rule(side="above"),
    ),
    Claim(
        key="stars_math",
        paper=UNISANDBOX,
        text="Self-training (STARS) brings that into drawing at once: arithmetic",
        theirs="BAGEL about .55 after it (note)",
        ours="drawn at once after STARS minus before",
        rule=Rule(side="above"),
    ),
    Claim(
        key="stars_mapping",
        paper=UNISANDBOX,
        text="Self-training (STARS) brings that into drawing at once: rules",
        theirs="abstract; no number found",
        ours="pairs drawn at once after STARS minus before",
        rule=Rule(side="above"),
    ),
    Claim(
        key="stars_control",
        paper=UNISANDBOX,
        text="It is the reasoning that is learned, not the format: pictures under shuffled prompts teach less",
        theirs="none: our control",
        ours="drawn at once after STARS minus after the shuffled control; arithmetic and rules",
        rule=Rule(side="above"),
    ),
    Claim(
        key="curriculum",
        paper=UNISANDBOX,
        text="A curriculum from easy to hard helps with the hardest rules",
        theirs="note; no number found",
        ours="mapping3 drawn at once: curriculum minus all difficulties at once, equal steps",
        rule=Rule(side="above"),
    ),
    Claim(
        key="knowledge_thought",
        paper=UNISANDBOX,
        text="Facts learned from text are drawn once the model thinks first",
        theirs=".10 \N{RIGHTWARDS ARROW} .63 (note; model not named)",
        ours="new characters taught by text: drawn after a thought minus at once",
        rule=Rule(side="above"),
    ),
    Claim(
        key="inverse_harder",
        paper=UNISANDBOX,
        text="Inverse questions (which of two?) are harder to draw than forward ones, also after a thought",
        theirs="note; no number found",
        ours="inverse minus forward, both drawn after a thought",
        rule=Rule(side="below"),
    ),
    Claim(
        key="inverse_low",
        paper=UNISANDBOX,
        text="Inverse questions stay mostly wrong even after a thought",
        theirs="\N{LEFT DOUBLE QUOTATION MARK}stays low\N{RIGHT DOUBLE QUOTATION MARK} (note; no number)",
        ours="inverse, drawn after a thought, minus one half",
        rule=Rule(side="below"),
    ),
    Claim(
        key="gap",
        paper=GAPEVAL,
        text="On the same items a model understands more than it draws",
        theirs="a Gap Score above 0 in each of 8 models (figure); it has no sign",
        ours="text minus drawing at once; arithmetic, rules, counting, plain",
        rule=Rule(side="above"),
    ),
    Claim(
        key="gap_logit",
        paper=GAPEVAL,
        text="The gap holds over kinds of tasks (the Gap Score)",
        theirs="Gap Score 55 to 90 in 8 models (figure): no sign, no interval",
        ours="difficulty-averaged logit, text minus drawing, in GapEval's four categories; never trained on",
        rule=Rule(side="above"),
        scale="logits",
    ),
    Claim(
        key="lagging",
        paper=GAPEVAL,
        text="In training, understanding comes first and drawing lags",
        theirs="note; no number found",
        ours="text minus drawing of plain and counting items, early in pretraining (the weak start of GvU below)",
        rule=Rule(side="above"),
    ),
    Claim(
        key="inject_text",
        paper=GAPEVAL,
        text="Facts injected by text do not reach drawing",
        theirs="\N{MINUS SIGN}.02, .00, \N{MINUS SIGN}.20 in three models (figure)",
        ours="change of drawing at once after training on text; new characters",
        rule=NO_TRANSFER,
    ),
    Claim(
        key="inject_pictures",
        paper=GAPEVAL,
        text="Facts injected by pictures do not reach text",
        theirs="\N{MINUS SIGN}.01, .00, \N{MINUS SIGN}.18 in three models (figure)",
        ours="change of text at once after training on pictures; new characters",
        rule=NO_TRANSFER,
    ),
    Claim(
        key="edit_text",
        paper=GAPEVAL,
        text="Facts overwritten by text stay as they were in drawing",
        theirs=".00, +.03, \N{MINUS SIGN}.04 in three models (figure)",
        ours="change of drawing the new fact at once after training on text; known characters",
        rule=NO_TRANSFER,
    ),
    Claim(
        key="edit_pictures",
        paper=GAPEVAL,
        text="Facts overwritten by pictures stay as they were in text",
        theirs=".00, \N{MINUS SIGN}.02, \N{MINUS SIGN}.01 in three models (figure)",
        ours="change of saying the new fact at once after training on pictures; known characters",
        rule=NO_TRANSFER,
    ),
    Claim(
        key="gvu_one",
        paper=GVU,
        text="A model's own understanding, as reward, teaches it to draw plain prompts: one kind of object",
        theirs="GenEval .68 \N{RIGHTWARDS ARROW} .81; counting .60 \N{RIGHTWARDS ARROW} .74 (note)",
        ours="drawn right after minus before, graded by its own frozen start",
        rule=Rule(side="above"),
    ),
    Claim(
        key="gvu_two",
        paper=GVU,
        text="The same: two kinds of objects",
        theirs="GenEval two objects .94 \N{RIGHTWARDS ARROW} .96 (note)",
        ours="drawn right after minus before, graded by its own frozen start",
        rule=Rule(side="above"),
    ),
    Claim(
        key="gvu_random",
        paper=GVU,
        text="It is the grades that teach: random ones teach less",
        theirs="none: our control",
        ours="drawn right after its own grades minus after random ones",
        rule=Rule(side="above"),
    ),
    Claim(
        key="gvu_weak",
        paper=GVU,
        text="A weaker start gains more",
        theirs="weak .21 \N{RIGHTWARDS ARROW} .50, regular .68 \N{RIGHTWARDS ARROW} .81 (note)",
        ours="gain of the weak start minus gain of the further one, same prompts",
        rule=Rule(side="above"),
    ),
    Claim(
        key="gvu_understanding",
        paper=GVU,
        text="Understanding rises a little with it",
        theirs="MMT-Bench .4976 \N{RIGHTWARDS ARROW} .4992 (note); within noise",
        ours="captions of given pictures right after minus before",
        rule=Rule(side="above"),
    ),
)

NOTES: Final = (
    "One small model (1.4 million weights, pictures of 24 pixels), where the papers measured large ones on "
    "photographs. That a claim agrees says that its mechanism can be seen here; that it differs says nothing against "
    "the paper's own measurement.",
    "In points (100 is everything), with 95% intervals over items: those of the same numbers in arithmetic, the same "
    "rules, the same character or pair count together. Not over training runs: each was trained once, knowledge with "
    "three seeds, and another seed is another draw.",
    "Every rule was written down before this run, but after the single recipes had been run; one interval a claim. "
    "They are not corrected for how many there are: of twenty verdicts one may be chance.",
    "No body of the three papers was read for this. Their numbers are from abstracts, figures, released code and "
    "third-party notes, as it says beside each; a note may be wrong.",
    "Left out: whether query-based models think in their queries, and whether the gap is the same for other ways of "
    "drawing (docs/architectures.md, docs/probe.md).",
)
