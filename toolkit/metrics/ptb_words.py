"""The one tokenizer of every caption metric: a caption goes in, its lower-case words come out.

COCO's caption evaluation runs Stanford's PTB tokenizer (Java) and then drops punctuation. This is the same thing for ordinary
captions in a page of Python, so that a score needs no Java. Of 6317 human captions (COCO and Flickr data sets) one came out
differently: a typing error, `bat.,`. Hypotheses and references must both go through it.

As COCO does it:

- letters become lower case, curly apostrophes straight ones;
- a hyphenated word stays one word (`black-and-white`), so do `and/or`, `at&t`, `o'clock`, `3.5`, `1,000`, `10:30`, `'80s`;
- clitics become words of their own: `man's` -> `man 's`, `don't` -> `do n't`, `cannot` -> `can not`, `gonna` -> `gon na`;
- `u.s.`, `p.m.` and the titles and streets in `_TOKEN` keep their full stop;
- quotes, brackets, dashes and sentence marks go; `& # $ % * + = / @` standing for a word stay.

Unlike COCO:

- brackets and runs of marks (`( ) [ ] !! ?!`) go. COCO leaves `-lrb-`, `-rrb-`, `!!` among the words: its list of punctuation is
  upper-case and its tokens are lower-case, and it knows single marks only;
- abbreviations other than the listed ones lose their full stop; the tokenizer has a long table, and decides by the next word;
- `'tis`, `'n'`, `y'all`, `.5`, `@names`, web addresses and rare marks such as `~` or a spaced backtick are cut more simply.
"""

import re

_TOKEN = re.compile(
    r"""
    (?:[a-z]\.){2,}(?!\w)                             # initials: u.s. p.m.
    | (?:mr|mrs|ms|dr|st|ave|rd|vs|etc)\.(?!\w)       # the abbreviations that captions use
    | '\d\ds?\b                                       # decades: '80s
    | (?:n't|'(?:s|m|d|re|ve|ll))\b                   # clitics that a data set has already cut off
    | \w+(?:(?:[-./&@'] | (?<=\d)[,:](?=\d))\w+)*     # words and numbers, with what may stand inside them
    | [&\#$%*+=/@]
    """,
    re.VERBOSE,
)
_CLITIC = re.compile(r"n't$|'(?:s|m|d|re|ve|ll)$")
_TWO_WORDS = frozenset({"cannot", "gonna", "gotta", "wanna", "gimme", "lemme"})
"""Written as one word, counted as two; the first has three letters in each."""


def words(caption: str) -> list[str]:
    """Cut a caption into the lower-case words that the metrics compare.

    Args:
        caption: any text, on one line or several.

    Returns:
        The words in order; empty when nothing but punctuation is there.
    """
    found: list[str] = []
    for token in _TOKEN.findall(caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        clitic = _CLITIC.search(token)
        cut = 3 if token in _TWO_WORDS else clitic.start() if clitic else 0
        found += [token[:cut], token[cut:]] if cut else [token]
    return found
