"""Porter's stemmer with its author's later changes, as in Lucene's ``PorterStemFilter``.

Source: M. F. Porter, "An algorithm for suffix stripping", Program 14 (1980). The changes are those of his own later
releases: words of two letters stay, "bli" becomes "ble" (not only "abli"), and "logi" becomes "log". Snowball's
"porter" lacks them, so it finds other products.
"""

from __future__ import annotations


def _by_last_letter(*endings: tuple[str, str]) -> dict[str, list[tuple[str, str]]]:
    """Group endings by their last letter, which tells at once the few endings that a word may have."""
    return {last: [pair for pair in endings if pair[0][-1] == last] for last in {ending[-1] for ending, _ in endings}}


_STEP_3 = _by_last_letter(
    *(("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("bli", "ble")),
    *(("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate")),
    *(("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al")),
    *(("iviti", "ive"), ("biliti", "ble"), ("logi", "log")),
)
_STEP_4 = _by_last_letter(
    *(("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")),
)
_STEP_5 = _by_last_letter(
    *((ending, ending) for ending in ("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent")),
    *((ending, ending) for ending in ("ou", "ism", "ate", "iti", "ous", "ive", "ize")),
    *(("sion", "ion"), ("tion", "ion")),
)


def stem(word: str) -> str:
    """Return the stem of a word in lower case."""
    if len(word) <= 2:
        return word
    word = _past_and_progressive(_plural(word))
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    return _tidy(_strip(_replace(_replace(word, _STEP_3), _STEP_4)))


def _shape(word: str) -> str:
    """Return a "v" for every vowel and a "c" for every other character. y is a vowel after a consonant."""
    shape = ""
    for letter in word:
        shape += "v" if letter in "aeiou" or (letter == "y" and shape.endswith("c")) else "c"
    return shape


def _measure(stem: str) -> int:
    """Return Porter's m: the number of times that a consonant follows a vowel."""
    return _shape(stem).count("vc")


def _ends_doubled(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word).endswith("c")


def _ends_short(word: str) -> bool:
    """Whether a word ends in consonant, vowel, consonant, and the last is not w, x or y."""
    return _shape(word).endswith("cvc") and word[-1] not in "wxy"


def _plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past_and_progressive(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    stem = word.removesuffix("ed") if word.endswith("ed") else word.removesuffix("ing")
    if stem == word or "v" not in _shape(stem):
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _ends_doubled(stem):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _ends_short(stem) else stem


def _replace(word: str, endings: dict[str, list[tuple[str, str]]]) -> str:
    for ending, other in endings.get(word[-1], ()):
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            return stem + other if _measure(stem) > 0 else word
    return word


def _strip(word: str) -> str:
    for ending, dropped in _STEP_5.get(word[-1], ()):
        if word.endswith(ending):
            stem = word.removesuffix(dropped)
            return stem if _measure(stem) > 1 else word
    return word


def _tidy(word: str) -> str:
    """Remove a last e or one of two l, where the rest is long enough."""
    if word.endswith("e"):
        stem = word[:-1]
        measure = _measure(stem)
        if measure > 1 or (measure == 1 and not _ends_short(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word
