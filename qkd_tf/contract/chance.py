"""Whether one classifier is better than another on the same examples, or only different: a paired test."""

import math


def chance(worse: int, better: int) -> float:
    """The probability of at least `worse` heads in `worse + better` tosses of a coin.

    McNemar's exact test, one-sided. Images on which both are right, or both wrong, tell nothing. On any other image,
    each of two equally good networks is as likely to be the one that is right.
    """
    num_tosses = worse + better
    term = total = math.comb(num_tosses, worse)
    for heads in range(worse, num_tosses):
        term = term * (num_tosses - heads) // (heads + 1)
        total += term
    return total / 2**num_tosses
