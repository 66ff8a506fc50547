"""Tokenize captions for all caption metrics into lower-case words.

COCO's caption evaluation runs Stanford's PTB tokenizer (Java) and removes punctuation. This module does the same for common captions
without Java. Of 6317 human captions (COCO and Flickr) it tokenizes one differently, which has a typing error: `bat.,`. Use it for
hypotheses and for references.

As in COCO's evaluation:

- letters become lower case, curly apostrophes straight ones;
- a hyphenated word stays one word (`black-and-white`), so do `and/or`, `at&t`, `o'clock`, `3.5`, `1,000`, `10:30`, `'80s`;
- clitics become words of their own: `man's` -> `man 's`, `don't` -> `do n't`, `cannot` -> `can not`, `gonna` -> `gon na`;
- `u.s.`, `p.m.` and the titles and streets in `_TOKEN` keep their full stop;
- quotes, brackets, dashes and sentence marks are removed; `& # $ % * + = / @` stay if they stand for a word.

Different from COCO's evaluation:

- brackets and runs of marks (`( ) [ ] !! ?!`) are removed. COCO keeps `-lrb-`, `-rrb-`, `!!` as words: its list of punctuation is
  upper-case while its tokens are lower-case, and the list contains single marks only;
- other abbreviations lose their full stop; the PTB tokenizer has a long table of them, and takes the next word into account;
- `'tis`, `'n'`, `y'all`, `.5`, `@names`, web addresses and rare marks such as `~` or a spaced backtick are split more simply.
"""

import re

_TOKEN = re.compile(
    r"""
    (?:[a-z]\.){2,}(?!\w)                             # initials: u.s. p.m.
    | (?:mr|mrs|ms|dr|st|ave|rd|vs|etc)\.(?!\w)       # the abbreviations that captions use
    | '\d\ds?\b                                       # decades: '80s
    | (?:n't|'(?:s|m|d|re|ve|ll))\b                   # clitics that a data set has already separated
    | \w+(?:(?:[-./&@'] | (?<=\d)[,:](?=\d))\w+)*     # words and numbers, with what may stand inside them
    | [&\#$%*+=/@]
    """,
    re.VERBOSE,
)
_CLITIC = re.compile(r"n't$|'(?:s|m|d|re|ve|ll)$")
_TWO_WORDS = frozenset({"cannot", "gonna", "gotta", "wanna", "gimme", "lemme"})
"""Each of these counts as two words, of which the first has three letters."""


def words(caption: str) -> list[str]:
    """Return the lower-case words of a caption.

    Args:
        caption: Any text, on one or several lines.

    Returns:
        The words in order; an empty list for punctuation only.
    """
    result: list[str] = []
    for token in _TOKEN.findall(caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        clitic = _CLITIC.search(token)
        cut = 3 if token in _TWO_WORDS else clitic.start() if clitic else 0
        result += [token[:cut], token[cut:]] if cut else [token]
    return result
