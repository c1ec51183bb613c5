"""An interpreter of pickles that imports and runs nothing.

Python's own reader looks names up in modules and calls what it finds. This one knows a pickle as what it is:
a small program for a stack machine (protocols 0 to 5, as documented in the standard library's pickletools).
Names become entries of one fixed table (standins.py), calls become functions of ours, attributes are never
set, and everything is bounded: operations, marks, memo, text, whole numbers.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from atelier.contract.errors import ModelUnusable
from workers.tasks.standins import Known, Malformed, StandIn, hashable, known

MAX_OPERATIONS = 3_000_000
MAX_MEMO = 1_000_000
MAX_MARKS = 10_000
MAX_PAYLOAD = 64 * 2**20
"""Bytes of all texts and byte strings together."""
MAX_COPIES = 20_000_000
"""Values in all lists, tuples and tables together that calls are given."""
MAX_LINE = 64 * 2**10
MAX_NUMBER = 32
"""Bytes, or three times as many digits, of a whole number."""
LAST_PROTOCOL = 5

Buffer = bytes | memoryview
Persistent = Callable[[Any], Any]


class Interpreter:
    """Reads one pickle at `place` of `data`. `persistent` gives the storage that a persistent id names."""

    def __init__(self, file: str, data: Buffer, place: int, persistent: Persistent | None = None) -> None:
        self.file = file
        self.place = place
        self._data = data
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._payload = MAX_PAYLOAD
        self._copies = MAX_COPIES

    def run(self) -> Any:
        """What the pickle builds, of plain values and stand-ins; `place` is then behind it. Raises
        ModelUnusable, naming the file.
        """
        try:
            for _ in range(MAX_OPERATIONS):
                code = self._take(1)[0]
                if code == _STOP:
                    return self._pop()
                operation = _OPERATIONS.get(code)
                if operation is None:
                    raise Malformed(f"it has the unknown instruction {code:#04x}")
                operation(self)
            raise Malformed("it has more instructions than any model")
        except Malformed as error:
            raise ModelUnusable(
                f"{self.file} is damaged or made to deceive: {error} (at byte {self.place:,})."
            ) from error
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError) as error:
            # Arguments that do not fit what they are given to; the value itself is not shown, it may be huge.
            raise ModelUnusable(
                f"{self.file} is damaged or made to deceive: its pickle contradicts itself at byte "
                f"{self.place:,} ({type(error).__name__})."
            ) from error

    # --- Bytes of the program.

    def _take(self, count: int) -> bytes:
        end = self.place + count
        if end > len(self._data):
            raise Malformed("it is cut off")
        found = bytes(self._data[self.place : end])
        self.place = end
        return found

    def _unpacked(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> bytes:
        window = bytes(self._data[self.place : self.place + MAX_LINE])
        end = window.find(b"\n")
        if end < 0:
            raise Malformed("a line in it does not end")
        self.place += end + 1
        return window[:end]

    def _string(self, form: str) -> bytes:
        """A byte string whose length comes before it."""
        count = self._unpacked(form)
        if not 0 <= count <= self._payload:
            raise Malformed("a text in it is longer than the file may hold")
        self._payload -= count
        return self._take(count)

    # --- The stack.

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= self._floor():
            raise Malformed("it takes more from its stack than is there")
        return self._stack.pop()

    def _top(self) -> Any:
        if len(self._stack) <= self._floor():
            raise Malformed("it looks at an empty stack")
        return self._stack[-1]

    def _floor(self) -> int:
        return self._marks[-1] if self._marks else 0

    def _mark(self) -> None:
        if len(self._marks) >= MAX_MARKS:
            raise Malformed("it is nested deeper than any model")
        self._marks.append(len(self._stack))

    def _marked(self) -> list[Any]:
        """Everything above the last mark, taken off with it."""
        if not self._marks:
            raise Malformed("it closes what was not opened")
        start = self._marks.pop()
        found = self._stack[start:]
        del self._stack[start:]
        return found

    def _remember(self, place: int) -> None:
        if len(self._memo) >= MAX_MEMO or not 0 <= place < 2**32:
            raise Malformed("it remembers more than any model")
        self._memo[place] = self._top()

    def _recall(self, place: int) -> None:
        if place not in self._memo:
            raise Malformed("it recalls what it did not remember")
        self._push(self._memo[place])

    # --- Plain values.

    def _protocol(self) -> None:
        if self._take(1)[0] > LAST_PROTOCOL:
            raise Malformed("it is written in an unknown version of the pickle format")

    def _frame(self) -> None:
        if self._unpacked("<Q") > len(self._data) - self.place:
            raise Malformed("it is cut off, or lies about its length")

    def _int_line(self) -> None:
        line = self._line()
        self._push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else _number(line))

    def _long(self, form: str) -> None:
        count = self._unpacked(form)
        if not 0 <= count <= MAX_NUMBER:
            raise Malformed("it holds a whole number larger than any model needs")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def _text(self, form: str) -> None:
        self._push(self._string(form).decode("utf-8", "surrogatepass"))

    def _old_text(self, data: bytes) -> None:
        """Python 2's str: text if it can be."""
        try:
            self._push(data.decode("utf-8"))
        except UnicodeDecodeError:
            self._push(data)

    def _quoted(self) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
            raise Malformed("a text in it is not quoted")
        self._old_text(codecs.escape_decode(line[1:-1])[0])

    # --- Tables, lists, tuples.

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is list:
            target.extend(values)
        elif not isinstance(target, StandIn):
            raise Malformed("it appends to what is no list")

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        entries = target.entries if isinstance(target, StandIn) else target
        if type(entries) is not dict or len(values) % 2:
            raise Malformed("it puts entries into what is no table")
        for key, value in zip(values[::2], values[1::2], strict=True):
            entries[hashable(key)] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _add_items(self) -> None:
        values, target = self._marked(), self._top()
        if type(target) is not set:
            raise Malformed("it adds to what is no set")
        target.update(hashable(each) for each in values)

    def _table(self) -> None:
        values = self._marked()
        self._push({})
        self._set_items(values)

    def _tuple(self, count: int) -> None:
        self._push(tuple(reversed([self._pop() for _ in range(count)])))

    def _drop(self) -> None:
        """POP also takes a mark, where nothing lies above it."""
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._pop()

    # --- Names and calls.

    def _name_lines(self) -> Known:
        module, name = self._line().decode("utf-8", "replace"), self._line().decode("utf-8", "replace")
        return known(self.file, module, name)

    def _named(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise Malformed("it names something by what is no text")
        self._push(known(self.file, module, name))

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Known) or function.build is None or type(arguments) is not tuple:
            raise Malformed("it calls what cannot be called")
        self._copies -= sum(len(each) for each in arguments if type(each) in (list, tuple, dict))
        if self._copies < 0:
            raise Malformed("it copies the same values again and again")
        self._push(_made(function, arguments))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._call(function, arguments)

    def _new_with_names(self) -> None:
        """NEWOBJ_EX: named arguments are left out, no stand-in has any."""
        named, arguments, function = self._pop(), self._pop(), self._pop()
        if type(named) is not dict:
            raise Malformed("it calls what cannot be called")
        self._call(function, arguments)

    def _object(self) -> None:
        values = self._marked()
        if not values:
            raise Malformed("it calls what cannot be called")
        self._call(values[0], tuple(values[1:]))

    def _build(self) -> None:
        """The state of an object: kept by stand-ins; attributes of tables and tensors have no use here."""
        state, target = self._pop(), self._top()
        if isinstance(target, StandIn):
            target.state = state
        elif type(target) is not dict and type(target).__name__ != "Tensor":
            raise Malformed("it gives a state to what has none")

    def _persist(self, identity: Any) -> None:
        if self._persistent is None:
            raise Malformed("it points out of itself where there is nothing")
        self._push(self._persistent(identity))

    def _extension(self) -> None:
        raise Malformed("it names something by a number of this machine's extension registry")

    def _outside(self) -> None:
        raise Malformed("it needs data that lie outside the file")


def _made(function: Known, arguments: tuple[Any, ...]) -> Any:
    """copyreg's `_reconstructor(class, base, state)` is what makes plain objects in old protocols."""
    if function.name.endswith("._reconstructor"):
        made = arguments[0]
        if not isinstance(made, Known):
            raise Malformed("it makes an object of no class")
        return StandIn(made.name, arguments[2:])
    assert function.build is not None  # noqa: S101  # the caller checked it
    return function.build(arguments)


def _number(line: bytes) -> int:
    digits = line.rstrip(b"L")
    if not 0 < len(digits) <= 3 * MAX_NUMBER:
        raise Malformed("it holds a whole number larger than any model needs")
    return int(digits)


_STOP = ord(".")
_Operation = Callable[[Interpreter], Any]
_OPERATIONS: dict[int, _Operation] = {
    0x80: lambda it: it._protocol(),
    0x95: lambda it: it._frame(),
    ord("N"): lambda it: it._push(None),
    0x88: lambda it: it._push(True),
    0x89: lambda it: it._push(False),
    ord("I"): lambda it: it._int_line(),
    ord("J"): lambda it: it._push(it._unpacked("<i")),
    ord("K"): lambda it: it._push(it._unpacked("<B")),
    ord("M"): lambda it: it._push(it._unpacked("<H")),
    ord("L"): lambda it: it._push(_number(it._line())),
    0x8A: lambda it: it._long("<B"),
    0x8B: lambda it: it._long("<i"),
    ord("F"): lambda it: it._push(float(it._line())),
    ord("G"): lambda it: it._push(it._unpacked(">d")),
    ord("S"): lambda it: it._quoted(),
    ord("T"): lambda it: it._old_text(it._string("<i")),
    ord("U"): lambda it: it._old_text(it._string("<B")),
    ord("B"): lambda it: it._push(it._string("<I")),
    ord("C"): lambda it: it._push(it._string("<B")),
    0x8E: lambda it: it._push(it._string("<Q")),
    0x96: lambda it: it._push(it._string("<Q")),
    ord("V"): lambda it: it._push(codecs.raw_unicode_escape_decode(it._line())[0]),
    ord("X"): lambda it: it._text("<I"),
    0x8C: lambda it: it._text("<B"),
    0x8D: lambda it: it._text("<Q"),
    ord("]"): lambda it: it._push([]),
    ord("}"): lambda it: it._push({}),
    ord(")"): lambda it: it._push(()),
    0x8F: lambda it: it._push(set()),
    ord("a"): lambda it: it._append([it._pop()]),
    ord("e"): lambda it: it._append(it._marked()),
    ord("l"): lambda it: it._push(it._marked()),
    ord("t"): lambda it: it._push(tuple(it._marked())),
    0x85: lambda it: it._tuple(1),
    0x86: lambda it: it._tuple(2),
    0x87: lambda it: it._tuple(3),
    ord("d"): lambda it: it._table(),
    ord("s"): lambda it: it._set_item(),
    ord("u"): lambda it: it._set_items(it._marked()),
    0x90: lambda it: it._add_items(),
    0x91: lambda it: it._push({hashable(each) for each in it._marked()}),
    ord("("): lambda it: it._mark(),
    ord("0"): lambda it: it._drop(),
    ord("1"): lambda it: it._marked(),
    ord("2"): lambda it: it._push(it._top()),
    ord("p"): lambda it: it._remember(_number(it._line())),
    ord("q"): lambda it: it._remember(it._unpacked("<B")),
    ord("r"): lambda it: it._remember(it._unpacked("<I")),
    0x94: lambda it: it._remember(len(it._memo)),
    ord("g"): lambda it: it._recall(_number(it._line())),
    ord("h"): lambda it: it._recall(it._unpacked("<B")),
    ord("j"): lambda it: it._recall(it._unpacked("<I")),
    ord("c"): lambda it: it._push(it._name_lines()),
    0x93: lambda it: it._named(),
    ord("R"): lambda it: it._reduce(),
    0x81: lambda it: it._reduce(),
    0x92: lambda it: it._new_with_names(),
    ord("i"): lambda it: it._call(it._name_lines(), tuple(it._marked())),
    ord("o"): lambda it: it._object(),
    ord("b"): lambda it: it._build(),
    ord("P"): lambda it: it._persist(it._line().decode("utf-8", "replace")),
    ord("Q"): lambda it: it._persist(it._pop()),
    0x82: lambda it: it._extension(),
    0x83: lambda it: it._extension(),
    0x84: lambda it: it._extension(),
    0x97: lambda it: it._outside(),
    0x98: lambda it: it._outside(),
}
"""By the instruction's byte; the names are those of pickletools."""
