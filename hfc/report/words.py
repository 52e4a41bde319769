"""What the words of a report mean, where a reader meets them: a button opens the explanation."""

import re

from markupsafe import Markup, escape

WORDS = {
    "P_final": "What a head says of an image: a probability, or a score, for each leaf of the tree. β is the share of "
    "its local output in it.",
    "hF": "Hierarchical F1: how much of the predicted and the true path is the same, the root left out. A near miss "
    "counts in part.",
    "severity": "Mistake severity: the mean height of the wrong answers alone. Read it together with top-1: a method "
    "that is wrong seldom, but then badly, has a high one.",
    "height": "How many levels one has to climb from the answer to a node that holds the truth as well: 0 where the "
    "answer is right, 1 for a sibling.",
    "distance": "distance@k: the mean height of the k most probable leaves.",
    "macro top-1": "Top-1 accuracy of each leaf by itself, and then the mean over leaves: rare ones count as much as "
    "frequent ones.",
    "ECE": "Expected calibration error: how far confidences and the share of right answers lie apart, in 15 bins.",
    "NLL": "Negative log-likelihood: −ln of the true leaf's share of P_final, mean over images. Less is better.",
    "full path": "The leaf is right, and each level's own answer down to it.",
    "inconsistent": "A level's own answer is not on the path to the predicted leaf.",
}
"""Each word, and what it means."""
IN_A_TEXT = ("P_final", "height")
"""The words that are explained in notes as well; the others where they head a column."""
PATTERN = re.compile(r"(?<![\w@+-])(" + "|".join(map(re.escape, WORDS)) + r")(?![\w+-])")


def anchor(word: str) -> str:
    """Name the element that holds the explanation of a word."""
    return "why-" + re.sub(r"[^A-Za-z0-9]+", "-", word)


def button(word: str) -> Markup:
    """Write the button that opens the explanation of a word, also without script."""
    return Markup('<button type="button" class="why" popovertarget="{}" aria-label="What is {}?">?</button>').format(
        anchor(word), word
    )


def headed(text: str) -> Markup:
    """Write the head of a column; its first known word gets a button."""
    word = PATTERN.search(text)
    return escape(text) + (button(word[1]) if word else Markup())


def noted(text: str) -> Markup:
    """Write a note; words of IN_A_TEXT get a button where they stand first."""
    parts, end, seen = [Markup()], 0, set()
    for word in PATTERN.finditer(text):
        if word[1] in IN_A_TEXT and word[1] not in seen:
            seen.add(word[1])
            parts += [escape(text[end : word.end()]), button(word[1])]
            end = word.end()
    return Markup().join([*parts, escape(text[end:])])
