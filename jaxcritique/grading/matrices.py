"""Evaluates sums and products of matrices on their entries."""

from fractions import Fraction

from jaxcritique.grading.numeric import rational
from jaxcritique.grading.syntax import Call, Matrix, Node, Number, add, children, multiply, rebuild

MAX_SIZE = 10  # Rows or columns of a factor; larger products are left as they are.
MAX_DETERMINANT = 4
MAX_NODES = 500  # In an entry; sums of products grow with every factor.
_MINUS_ONE = Number(Fraction(-1))


def carried_out(node: Node) -> Node:
    """Evaluates sums, products and multiples of matrices in `node`, as far as they are small."""
    if not has_matrix(node):
        return node
    nodes = tuple(map(carried_out, children(node)))
    result = None
    if isinstance(node, Call) and node.op in ("+", "*"):
        combine = _sum if node.op == "+" else _product
        result, *rest = nodes
        for other in rest:
            result = result and _if_small(combine(result, other))
    elif isinstance(node, Call) and node.op == "neg":
        result = _product(_MINUS_ONE, nodes[0])
    elif isinstance(node, Call) and node.op == "det" and isinstance(nodes[0], Matrix):
        result = _if_small(_determinant(nodes[0].rows))
    return rebuild(node, nodes) if result is None else result


def _if_small(node: Node | None) -> Node | None:
    """Returns `node` with its numbers worked out; None where an entry is still too large."""
    if isinstance(node, Matrix):
        entries = [_if_small(entry) for entry in children(node)]
        small = tuple(entry for entry in entries if entry is not None)
        return rebuild(node, small) if len(small) == len(entries) else None
    if node is None or _is_large(node):
        return None
    value = rational(node)
    return node if value is None else Number(value)


def _is_large(node: Node) -> bool:
    stack, count = [node], 0
    while stack and count <= MAX_NODES:
        stack.extend(children(stack.pop()))
        count += 1
    return bool(stack)


def has_matrix(node: Node) -> bool:
    """Whether a matrix is written out anywhere in `node`."""
    return isinstance(node, Matrix) or any(map(has_matrix, children(node)))


def _sum(a: Node, b: Node) -> Node | None:
    if not isinstance(a, Matrix) or not isinstance(b, Matrix) or _shape(a) != _shape(b):
        return None
    rows = zip(a.rows, b.rows, strict=True)
    return Matrix(tuple(tuple(map(add, *pair)) for pair in rows))


def _product(a: Node, b: Node) -> Node | None:
    if max(*_shape(a), *_shape(b)) > MAX_SIZE:
        return None
    if not isinstance(a, Matrix):
        return _multiple(a, b) if isinstance(b, Matrix) else multiply(a, b)
    if not isinstance(b, Matrix):
        return _multiple(b, a)
    if len(a.rows[0]) != len(b.rows):
        return None
    columns = list(zip(*b.rows, strict=True))
    return Matrix(tuple(tuple(_dot(row, column) for column in columns) for row in a.rows))


def _determinant(rows: tuple[tuple[Node, ...], ...]) -> Node | None:
    """Expands along the first row; None where the matrix is not square, or too large for that."""
    if len(rows) != len(rows[0]) or len(rows) > MAX_DETERMINANT:
        return None
    if len(rows) == 1:
        return rows[0][0]
    terms: list[Node] = []
    for column, entry in enumerate(rows[0]):
        minor = _determinant(tuple(row[:column] + row[column + 1 :] for row in rows[1:]))
        if minor is not None:
            term = multiply(entry, minor)
            terms.append(Call("neg", (term,)) if column % 2 else term)
    return add(*terms)


def _multiple(factor: Node, matrix: Matrix) -> Matrix:
    return Matrix(tuple(tuple(multiply(factor, entry) for entry in row) for row in matrix.rows))


def _dot(row: tuple[Node, ...], column: tuple[Node, ...]) -> Node:
    return add(*map(multiply, row, column))


def _shape(node: Node) -> tuple[int, int]:
    return (len(node.rows), len(node.rows[0])) if isinstance(node, Matrix) else (1, 1)
