r"""Answer extraction and equivalence: a verdict on what a model wrote, safe on any text.

Published graders differ on what counts as the same answer. This is the policy here; `strict`
switches off each point marked (lenient).

* A fraction, a root or a constant equals a decimal that rounds it correctly to two places or more
  (lenient); a number with a finite decimal form equals only that form: 1/8 is not 0.13. A decimal
  of twelve places or more was printed by a machine: it equals the number it approximates (lenient).
* 12,345 is one number or (lenient) the bare list of 12 and 345, never the pair (12,345), which is
  what commas in brackets make; 2,74 is a list or (lenient) 2.74, as are 1.234,56 and 1,23,456.
* 10% equals 0.1 and (lenient) 10. A currency sign is dropped, but a number with a dollar sign is
  not one in cents (lenient). A degree sign is dropped, but counts in a sine's argument, where it
  may only be left out of the same text (lenient): cos 58 for cos 58 degrees.
* Known units of the same quantity are converted; those of different quantities are unequal. Any
  other label beside a number, and a unit that one side leaves out, is ignored (lenient). 1 hour
  30 minutes is one quantity, each part less than one unit of the part before: 90 minutes, and
  (lenient) the bare numbers 90 and 1.5.
* `x = 5` equals 5, `y = 2x` equals 2x, and `x \in \{1,2\}` the set (lenient); equations are
  compared up to a factor, inequalities with the intervals they describe.
* Tuples and vectors are ordered, sets are not, bare lists are not (lenient). The pair (1,2) is not
  the set {1,2}; a column vector equals the tuple of its entries (lenient).
* A numeral in a base has its value, 101_2 = 5, and (lenient) equals its digits without the base.
* Variables are positive where a root or a logarithm is taken of them: the square root of x^2 is x.
* Inequalities of one variable listed together hold at once where either alone would leave out
  nothing: `x > 2, x < 5` is (2,5), `x < 2, x > 5` and `x > 2 or x < 5` are unions. Inequalities of
  several variables are a list.
* A time equals the same time on a 24-hour clock (lenient: 3:30 pm is 15:30), and the same time
  without am or pm (lenient). A ratio equals a ratio of the same terms only, and (lenient) their
  quotient: 2:4 is not 1:2.
* Blanks mean what they mean to LaTeX: \frac1 23 is \frac12 3.
* A choice equals its letter with the words of the option behind it: (C) 12 apples is C, and
  (lenient) the option's value.
* A bound is the number it names in no case: "more than 18", "between 15 and 18", "18 or more" and
  "not 18" equal the same words only. "About 18" is 18.
* The value of a named sum is that value: m + n = 41 is 41. A sum of x, y or z, or one with
  coefficients, is an equation, which equals equations only.
* Answers to parts have the order of their letters: (a) 4, (b) 9 is (4, 9), or the bare list 4, 9.
* Superscripts are exponents, subscripts indices or bases; digits of any script have their value,
  and a dash between two numerals is a range.
* Words are compared without their case, single letters with it. Numbers in words are words.
"""

from jaxcritique.grading.extract import Extraction, extract_answer
from jaxcritique.grading.grader import Grade, Grader, grade

__all__ = ["Extraction", "Grade", "Grader", "extract_answer", "grade"]
