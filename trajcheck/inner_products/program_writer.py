"""From the products that some rows need (catalogue.py) to a program for the pass's inner loop (program.py).

What rows share is done once: x_{t+1} - x_t is row t's next step and row t+1's step, |x_s - x*|^2 is row s's distance
too. What is loaded is used for several products at once: a vector is widened together with its differences from what is
at hand (Differ), and products that share a factor are made together (Cross). The products that nearly every row has are
one instruction (Step), and those towards further references another (Towards): they widen their vectors and form their
differences anew, which takes less time than to keep them. A value stays in its slot until it was used for the last
time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trajcheck.inner_products.catalogue import REFERENCE_PRODUCTS, STEP_PRODUCTS, Operand
from trajcheck.inner_products.direct import Direct, Replayed, ReplayedTowards
from trajcheck.inner_products.program import (
    NOWHERE,
    Cross,
    Differ,
    Difference,
    Instruction,
    Key,
    Places,
    Program,
    Regularise,
    allocate_slots,
)
from trajcheck.inner_products.usual_row import REGULARISED, Part, Product, RowRequest, Value, usual_parts

#: Of kernel.c: differences in one Differ; common and more values in one Cross, and its sums without a's square and a b.
MOST_DIFFERENCES, MOST_COMMON, MOST_MORE, MOST_SUMS = 4, 4, 4, 10

#: Products of a Step, or of a Replayed, below which it is not worth making them all.
FEWEST_OF_A_STEP = 4


#: The vectors that a product is made of, those of its one factor and those of the other.
Factors = tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]


def _factors(table: Mapping[str, tuple[Operand, Operand]]) -> dict[str, Factors]:
    found: dict[str, Factors] = {}
    for name, operands in table.items():
        left, right = ((each,) if isinstance(each, str) else each for each in operands)
        found[name] = frozenset((*left, *right)), left, right
    return found


_OF_STEP, _OF_REFERENCE = _factors(STEP_PRODUCTS), _factors(REFERENCE_PRODUCTS)


def write_program(requests: Sequence[RowRequest]) -> Program:
    """The program for some rows."""
    (program,) = write_programs([requests])
    return program


def write_programs(groups: Sequence[Sequence[RowRequest]], levels: Mapping[int, int] | None = None) -> list[Program]:
    """A program for each group of rows, to run one after the other: no product is made in two of them. `levels` of
    weight decay (Segments), by the place of a row; 0 where none is given."""
    writer = _Writer(levels or {})
    rows = [[writer.row(request) for request in requests] for requests in groups]
    writer.find_usual([request for requests in groups for request in requests])
    written = writer.programs([len(requests) for requests in groups])
    return [
        Program(instructions, vectors, allocate_slots(instructions), len(writer.outputs), places)
        for (instructions, vectors), places in zip(written, rows, strict=True)
    ]


class _Writer:
    """First the products of every row are taken down; then instructions are written, with numbers of values in place of
    slots."""

    def __init__(self, levels: Mapping[int, int]) -> None:
        self._levels = levels
        self.vectors: dict[Key, int] = {}
        self.outputs: dict[frozenset[Value], int] = {}
        self._rows: list[list[Product]] = []  # the products that a row is the first to ask for
        self._usual: list[list[Part]] = []  # what of a row is usual
        self._numbers: dict[Value, int] = {}
        self._written: list[Instruction] = []
        self._made: set[frozenset[Value]] = set()  # products that are written
        self._crossed: set[Value] = set()  # values that are multiplied with others
        self._differences: dict[Value, list[Value]] = {}  # by the vector that they are formed from
        self._parts: set[Value] = set()  # vectors that other values are made of

    def row(self, request: RowRequest) -> tuple[Places, list[Places]]:
        """Take down what a row needs; where its products will be."""
        self._rows.append([])
        own = self._places(_OF_STEP, request.step_products, request.vectors)
        towards = [
            self._places(_OF_REFERENCE, request.reference_products, {**request.vectors, **reference})
            for reference in request.references
        ]
        return own, towards

    def _places(self, factors: Mapping[str, Factors], names: Sequence[str], known: Mapping[str, Key]) -> Places:
        places = {}
        for name in names:
            needed, left, right = factors[name]
            if known.keys() >= needed:
                a, b = tuple([known[each] for each in left]), tuple([known[each] for each in right])
                pair = frozenset((a, b))
                if pair not in self.outputs:
                    self.outputs[pair] = len(self.outputs)
                    self._rows[-1].append((a, b))
                places[name] = self.outputs[pair]
        return places

    def find_usual(self, requests: Sequence[RowRequest]) -> None:
        """Find what of rows is usual; what that makes is no longer asked for otherwise."""
        made: set[frozenset[Value]] = set()
        for number, request in enumerate(requests):
            usual = usual_parts(request)
            step = [frozenset(product) for product in usual[0].products] if usual else []
            if sum(pair in self.outputs and pair not in made for pair in step) >= FEWEST_OF_A_STEP:
                made.update(frozenset(product) for part in usual for product in part.products)
            else:
                usual = []
            self._usual.append(usual)
            self._rows[number] = [product for product in self._rows[number] if frozenset(product) not in made]

    def programs(self, sizes: Sequence[int]) -> list[tuple[list[Instruction], list[Key]]]:
        """The instructions for so many rows each, where numbers of values are still in place of slots; and the vectors
        of each."""
        programs = []
        first = 0
        for size in sizes:
            self.vectors, self._numbers, self._written = {}, {}, []
            rows = self._rows[first : first + size]
            left = [[product for product in row if frozenset(product) not in self._made] for row in rows]
            self._instructions(left, self._usual[first : first + size])
            programs.append((self._written, list(self.vectors)))
            first += size
        return programs

    def _instructions(self, rows: Sequence[Sequence[Product]], usual_parts: Sequence[Sequence[Part]]) -> None:
        """Write what makes the products of some rows, which have no values at hand."""
        products = [product for row in rows for product in row]
        values = dict.fromkeys(value for product in products for value in product)
        self._crossed = {value for a, b in products if a != b for value in (a, b)}
        self._differences, self._parts = {}, set()
        for value in values:
            if len(value) == 2:
                self._differences.setdefault(value[:1], []).append(value)
                self._parts |= {value[:1], value[1:]}
            elif value[0][0] == REGULARISED:
                self._parts |= set(_parts_of_regularised(value))
        for row, usual in zip(rows, usual_parts, strict=True):
            self._written += [self._direct(part) for part in usual]
            crosses = _crosses([(a, b) for a, b in row if a != b])
            taken = {value for cross in crosses for value in cross.others}
            passing = {cross.a for cross in crosses if cross.a not in taken and self._may_pass(cross.a)}
            for value in dict.fromkeys(value for product in row for value in product):
                if value not in passing:
                    self._make(value)
            self._written += [self._cross(cross) for cross in crosses]

    def _direct(self, part: Part) -> Direct:
        vectors, outputs = (
            [self._vector(each) for each in part.vectors],
            [self._product(*each) for each in part.products],
        )
        if part.kind is Replayed or part.kind is ReplayedTowards:
            return part.kind(vectors, outputs, self._levels.get(part.vectors[0][0][1], 0))
        return part.kind(vectors, outputs)

    def _cross(self, cross: _Shared) -> Cross:
        a, b = cross.a, cross.b
        passes = a not in self._numbers
        outputs = []
        if cross.common:
            outputs.append(self._product(a, b) if cross.pair else NOWHERE)
        for value in cross.common:
            outputs += (self._product(a, value), self._product(b, value))
        outputs += (self._product(a, value) for value in cross.more)
        return Cross(
            self._vector(a) if passes else ~self._numbers[a],
            self._number(a) if passes else NOWHERE,
            self._product(a, a) if passes else NOWHERE,
            self._numbers[b] if cross.common else NOWHERE,
            [self._numbers[value] for value in cross.common],
            [self._numbers[value] for value in cross.more],
            outputs,
        )

    def _may_pass(self, value: Value) -> bool:
        """Whether a value is a stored vector of which no other is made: its first Cross can widen it."""
        return (
            len(value) == 1 and value[0][0] != REGULARISED and value not in self._numbers and value not in self._parts
        )

    def _make(self, value: Value) -> None:
        """Write what puts a value into a slot and makes its square."""
        if value in self._numbers:
            return
        if len(value) == 2:
            self._make(value[:1])
            self._make(value[1:])
            if value not in self._numbers:  # else it was formed when the first of the two was widened
                self._written.append(Differ(~self._numbers[value[:1]], NOWHERE, NOWHERE, [self._difference(value)]))
        elif value[0][0] == REGULARISED:
            gradient, iterate = _parts_of_regularised(value)
            self._make(gradient)
            self._make(iterate)
            a, b = self._numbers[gradient], self._numbers[iterate]
            level = self._levels.get(value[0][1], 0)
            self._written.append(Regularise(a, b, self._number(value), level, self._product(value, value)))
        else:
            at_hand = [each for each in self._differences.get(value, ()) if each[1:] in self._numbers]
            to = self._number(value)
            source, square = self._vector(value), self._product(value, value)
            for start in range(0, max(1, len(at_hand)), MOST_DIFFERENCES):
                formed = [self._difference(each) for each in at_hand[start : start + MOST_DIFFERENCES]]
                self._written.append(Differ(source, NOWHERE if start else to, square, formed))
                source, square = ~to, NOWHERE

    def _difference(self, value: Value) -> Difference:
        kept = value in self._crossed
        to = self._number(value)  # also where it is only squared: it has then been made
        return Difference(self._numbers[value[1:]], to if kept else NOWHERE, self._product(value, value))

    def _product(self, a: Value, b: Value) -> int:
        """The number of a product, where somebody asked for it and it was not made yet."""
        pair = frozenset((a, b))
        if pair in self._made:
            return NOWHERE
        self._made.add(pair)
        return self.outputs.get(pair, NOWHERE)

    def _vector(self, value: Value) -> int:
        return self.vectors.setdefault(value[0], len(self.vectors))

    def _number(self, value: Value) -> int:
        return self._numbers.setdefault(value, len(self._numbers))


def _parts_of_regularised(value: Value) -> tuple[Value, Value]:
    ((_, place),) = value
    return (("gradient", place),), (("iterate", place),)


@dataclass
class _Shared:
    """Products with factors in common: of a and b with each of `common`, of a with each of `more`, where `pair` of a
    with b."""

    a: Value
    b: Value
    common: list[Value]
    more: list[Value]
    pair: bool

    @property
    def others(self) -> list[Value]:
        """The values that are loaded beside a."""
        return [*([self.b] if self.common else []), *self.common, *self.more]


def _crosses(products: Sequence[tuple[Value, Value]]) -> list[_Shared]:
    """Products of two different values, put together so that few values are loaded: greedily, first the value that is
    in most products, with the one that it shares most partners with."""
    partners: dict[Value, dict[Value, None]] = {}
    for a, b in products:
        partners.setdefault(a, {})[b] = None
        partners.setdefault(b, {})[a] = None
    found = []
    while any(partners.values()):
        a = max(partners, key=lambda value: len(partners[value]))
        mine = partners[a]
        b = max(
            partners.keys() - {a}, key=lambda value: (len(mine.keys() & partners[value].keys()), value in mine, value)
        )
        common = [value for value in mine if value in partners[b]][:MOST_COMMON]
        pair = bool(common) and b in mine
        apart = [value for value in mine if value not in common and not (pair and value == b)]
        more = apart[: min(MOST_MORE, MOST_SUMS - 2 * len(common))]
        found.append(_Shared(a, b, common, more, pair))
        for value in [*common, *more, *([b] if pair else [])]:
            del partners[a][value], partners[value][a]
        for value in common:
            del partners[b][value], partners[value][b]
    return found
