"""Variables on their way to another process: what comes, what stays one object, what is named."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unstuck_worker.transplant.blame import find_path
from unstuck_worker.transplant.groups import make_groups
from unstuck_worker.transplant.hand import Hand, TooLong
from worker.carriage import Carriage, carry, namespace_of

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f"])
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


# --- groups ---------------------------------------------------------------------------------------


def test_names_that_share_an_object_are_one_group_and_others_are_not() -> None:
    objects = {"a": [1, 2], "b": [2, 3], "c": [4], "d": [3]}
    groups = make_groups(objects, dict.fromkeys(objects, ()))
    assert sorted(map(sorted, groups)) == [["a", "b", "d"], ["c"]]


def test_a_group_comes_after_what_it_needs() -> None:
    objects: dict[str, list[int]] = {"user": [], "function": [], "other": []}
    groups = make_groups(objects, {"user": ["function"], "function": ["other"], "other": []})
    assert groups == [["other"], ["function"], ["user"]]


def test_groups_that_need_each_other_are_one() -> None:
    objects: dict[str, list[int]] = {"A": [], "B": [], "c": []}
    groups = make_groups(objects, {"A": ["B"], "B": ["A"], "c": ["A"]})
    assert [set(group) for group in groups] == [{"A", "B"}, {"c"}]


@given(
    objects=st.dictionaries(NAMES, st.frozensets(st.integers(0, 8)), min_size=1),
    pairs=st.lists(st.tuples(NAMES, NAMES)),
)
def test_every_name_is_in_one_group_behind_its_needs(
    objects: dict[str, frozenset[int]], pairs: list[tuple[str, str]]
) -> None:
    needs = {name: [b for a, b in pairs if a == name and b in objects] for name in objects}
    groups = make_groups(objects, needs)
    place = {name: at for at, group in enumerate(groups) for name in group}
    assert sorted(name for group in groups for name in group) == sorted(objects)
    for name, wanted in needs.items():
        assert all(place[other] <= place[name] for other in wanted)
    for one, ids in objects.items():
        for other, more in objects.items():
            assert place[one] == place[other] or not ids & more


# --- values and identity --------------------------------------------------------------------------


@st.composite
def sessions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw variables whose containers hold each other, cycles included."""
    pool: list[Any] = [
        draw(st.sampled_from([list, dict, set]))() for _ in range(draw(st.integers(1, 6)))
    ]
    for _ in range(draw(st.integers(0, 12))):
        inside = draw(ATOMS | st.sampled_from(pool))
        match draw(st.sampled_from(pool)):
            case list() as one:
                one.append(inside)
            case dict() as one:
                one[draw(st.text(max_size=3))] = inside
            case set() as one if not isinstance(inside, list | dict | set):
                one.add(inside)
            case _:
                pass
    names = draw(st.lists(NAMES, min_size=1, unique=True))
    return {name: draw(st.sampled_from(pool) | ATOMS) for name in names}


def shape(value: object, seen: dict[int, int]) -> object:
    """Describe a value with all that it holds, and which containers are the same object."""
    if not isinstance(value, list | dict | set):
        return repr(value)
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    if isinstance(value, set):
        return ("set", sorted(map(repr, value)))
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return (type(value).__name__, [(repr(key), shape(part, seen)) for key, part in parts])


@given(session=sessions())
@settings(max_examples=60, deadline=None)
def test_values_come_with_the_same_shape_and_the_same_identities(session: dict[str, Any]) -> None:
    namespace = namespace_of() | session
    carriage = Carriage(namespace)
    before: dict[int, int] = {}
    after: dict[int, int] = {}
    assert (carriage.not_pickled, carriage.not_read) == ({}, {})
    for name, value in session.items():
        assert shape(carriage.there[name], after) == shape(value, before), name


def test_two_names_of_one_object_stay_one_object() -> None:
    there = carry("a = [1]\nb = a\nc = {'inner': a}\nd = (a,)\ne = d\nf = [2]")
    assert there["b"] is there["a"] is there["c"]["inner"] is there["d"][0]
    assert there["e"] is there["d"]
    assert there["f"] is not there["a"]


def test_variables_that_share_nothing_do_not_travel_together() -> None:
    pytest.importorskip("pandas")
    carriage = Carriage(
        namespace_of(
            """
            import pandas as pd, numpy as np
            x, y = np.arange(9.0), np.arange(9.0)
            one, two = pd.DataFrame({'a': x}), pd.DataFrame({'a': x})
            texts, more = ['key', 1, None], ['key', 1, None]
            """
        )
    )
    assert all(len(group) == 1 for group in carriage.names)


def test_what_hangs_on_a_variable_with_millions_of_objects_stays_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unstuck_worker.transplant.dumping.LISTED_ENTRIES", 100)
    there = carry("big = [{'a': i} for i in range(500)]\nfirst = big[0]\nother = big\nalone = []")
    assert there["first"] is there["big"][0]
    assert there["other"] is there["big"]


def test_large_arrays_stay_out_of_the_pickle_and_can_be_written() -> None:
    pytest.importorskip("numpy")
    carriage = Carriage(namespace_of("import numpy as np\nx = np.zeros(100_000)\ny = x[::2]"))
    (group,) = [group for group in carriage.groups if "x" in group.names]
    assert len(group.body) < 1000
    carriage.there["x"][0] = 7
    assert carriage.there["y"].sum() == 0


# --- functions and classes ------------------------------------------------------------------------


def test_functions_of_cells_live_in_the_namespace_that_they_come_to() -> None:
    there = carry(
        """
        y = 1
        def f(x): return g(x) + y
        def g(x): return 2 * x
        handlers = {'f': f}
        alias = f
        quick = lambda: f(1)
        """
    )
    assert there["f"].__globals__ is there
    there["y"] = 10
    assert there["f"](1) == 12
    assert there["handlers"]["f"] is there["f"] is there["alias"]
    assert there["quick"]() == 12


def test_closures_that_share_a_cell_still_do() -> None:
    there = carry(
        """
        def counter():
            count = 0
            def up():
                nonlocal count
                count += 1
            def read(): return count
            return up, read
        up, read = counter()
        """
    )
    there["up"]()
    assert there["read"]() == 1


def test_instances_find_their_class_and_its_bases() -> None:
    there = carry(
        """
        import dataclasses, enum, collections
        class Base:
            items = []
            def me(self): return Base
        class Child(Base): pass
        items = Base.items
        c = Child()
        nested = {'child': [Child(), Base]}
        @dataclasses.dataclass
        class Point:
            x: int
            base: Base
        p = Point(1, Base())
        class Colour(enum.Enum):
            red = 1
        red = Colour.red
        Pair = collections.namedtuple('Pair', 'a b')
        pair = Pair(1, [])
        """
    )
    assert type(there["c"]) is there["Child"]
    base: Any = there["Base"]
    assert [there["Child"].__base__, there["nested"]["child"][1], there["c"].me()] == [base] * 3
    assert base.items is there["items"]
    assert there["p"] == there["Point"](1, there["p"].base)
    assert there["red"] is there["Colour"].red
    assert type(there["pair"]) is there["Pair"]


def test_classes_that_know_each_other_come_together() -> None:
    there = carry("class A: pass\nclass B: pass\nA.b = B\nB.a = A\nx = A()")
    assert there["A"].b is there["B"]
    assert there["B"].a is there["A"] is type(there["x"])


def test_an_old_instance_keeps_the_class_that_it_was_made_of() -> None:
    there = carry("class A: v = 1\nold = A()\nclass A: v = 2\nnew = A()")
    assert (there["old"].v, there["new"].v) == (1, 2)
    assert type(there["new"]) is there["A"] is not type(there["old"])


def test_functions_with_a_cache_come_with_an_empty_one() -> None:
    there = carry(
        """
        import functools, re
        factor = 2
        @functools.lru_cache(maxsize=7, typed=True)
        def times(number):
            "Multiply."
            return number * factor
        times.note = [1]
        times(1), times(1)
        class Rows:
            @functools.cache
            def count(self): return 5
        rows = Rows()
        rows.count()
        library = functools.cache(len), re.compile
        """
    )
    there["factor"] = 3
    assert there["times"](2) == 6
    assert there["times"].cache_parameters() == {"maxsize": 7, "typed": True}
    assert there["times"].cache_info().misses == 1
    assert (there["times"].__doc__, there["times"].note) == ("Multiply.", [1])
    assert there["rows"].count() == 5


def test_a_cached_function_is_not_taken_for_another_one_of_its_name() -> None:
    carriage = Carriage(
        namespace_of("import functools\n@functools.cache\ndef answer(): return 42\nkept = [answer]")
    )
    assert carriage.there["kept"][0] is carriage.there["answer"]
    assert carriage.there["answer"]() == 42


def test_classes_with_cached_properties_come() -> None:
    there = carry(
        """
        import functools
        class Model:
            @functools.cached_property
            def size(self):
                "How many."
                return 5
        seen, unseen = Model(), Model()
        seen.size
        """
    )
    assert vars(there["seen"]) == {"size": 5}
    assert there["unseen"].size == 5
    assert vars(there["unseen"]) == {"size": 5}
    assert there["Model"].size.__doc__ == "How many."


def test_modules_come_by_name() -> None:
    there = carry("import math\nimport os.path as p\nfrom math import tau, floor")
    assert there["math"] is math
    assert there["floor"] is math.floor


def test_code_of_another_python_is_left_out_and_data_is_not() -> None:
    carriage = Carriage(namespace_of("def f(): pass\nx = [1]\nuses = [f]"), python="3.99.1")
    assert carriage.there["x"] == [1]
    assert "holds code of Python 3.99" in carriage.not_read["f"]
    assert carriage.not_read["uses"] == "it needs f, which has not come"


# --- what cannot come -----------------------------------------------------------------------------


def test_what_cannot_be_pickled_is_named_with_the_part_that_is_to_blame() -> None:
    carriage = Carriage(
        namespace_of(
            """
            import threading
            class Model: pass
            model = Model()
            model.cache = {'locks': [1, threading.Lock()]}
            gen = (i for i in [1])
            fine = 1
            def outer(lock=threading.Lock()): return lock
            needs_it = [outer]
            """
        )
    )
    assert carriage.not_pickled == {
        "model": "model.cache['locks'][1] (_thread.lock): cannot pickle '_thread.lock' object",
        "gen": "cannot pickle 'generator' object",
        "outer": "outer.__defaults__[0] (_thread.lock): cannot pickle '_thread.lock' object",
        "needs_it": "it needs outer, which cannot come",
    }
    assert {"threading", "Model", "fine"} < set(carriage.there)


def test_what_does_not_end_is_given_up_and_named() -> None:
    carriage = Carriage(
        namespace_of(
            """
            import time
            class Slow:
                def __reduce__(self):
                    while True: time.sleep(0.01)
            slow, fine = Slow(), [1]
            """
        ),
        deadline_s=0.3,
    )
    assert carriage.not_pickled == {"slow": "not ready within 0.3 s"}
    assert carriage.there["fine"] == [1]


def test_what_cannot_be_read_is_named_and_costs_nobody_else() -> None:
    carriage = Carriage(
        namespace_of(
            """
            class Bad:
                def __getstate__(self): return {'a': 1}
                def __setstate__(self, state): raise ValueError('not here')
            bad, fine, with_bad = Bad(), [1], {'x': None}
            with_bad['x'] = bad
            """
        )
    )
    assert carriage.not_read == dict.fromkeys(("bad", "with_bad"), "ValueError: not here")
    assert carriage.there["fine"] == [1]


def test_what_would_end_the_program_that_reads_or_pickles_it_is_named() -> None:
    carriage = Carriage(
        namespace_of(
            """
            class Bad:
                def __init__(self, error): self.error = error
                def __reduce__(self): raise self.error
            class Worse:
                def __init__(self, code): self.code = code
                def __reduce__(self): return eval, (self.code,)
            exits, closes = Bad(SystemExit(3)), Bad(GeneratorExit)
            interrupts = Bad(KeyboardInterrupt)
            late = Worse("__import__('sys').exit(4)")
            fine = [1]
            """
        )
    )
    assert carriage.not_pickled == {
        "exits": "SystemExit: 3",
        "interrupts": "KeyboardInterrupt",
        "closes": "GeneratorExit",
    }
    assert carriage.not_read == {"late": "SystemExit: 4"}
    assert carriage.there["fine"] == [1]


def test_what_is_nested_too_deeply_is_named() -> None:
    carriage = Carriage(namespace_of("deep = []\nfor _ in range(100_000): deep = [deep]\nfine = 1"))
    assert carriage.not_pickled == {"deep": "it is nested too deeply"}


def test_an_exception_that_cannot_say_what_it_is_harms_nobody() -> None:
    carriage = Carriage(
        namespace_of(
            """
            class Rude(Exception):
                def __str__(self): raise RuntimeError
            class Bad:
                def __reduce__(self): raise Rude
            bad, fine = Bad(), 1
            """
        )
    )
    assert carriage.not_pickled == {"bad": "Rude"}


def test_a_variable_that_a_thread_changes_meanwhile_is_tried_again() -> None:
    namespace = namespace_of(
        """
        class Twice:
            tries = []
            def __reduce__(self):
                Twice.tries.append(1)
                if len(Twice.tries) == 1:
                    raise RuntimeError('dictionary changed size during iteration')
                return (list, ())
        twice = Twice()
        """
    )
    carriage = Carriage(namespace)
    assert carriage.not_pickled == {}
    assert carriage.there["twice"] == []


def test_the_shortest_path_to_a_part_is_found() -> None:
    aim = object()
    assert find_path({"long": [[[aim]]], "short": (1, aim)}, aim) == "['short'][1]"
    assert find_path([1, 2], aim) is None


# --- the hand -------------------------------------------------------------------------------------


def test_a_call_that_hangs_does_not_hold_up_the_next() -> None:
    never = threading.Event()
    with Hand() as hand:
        with pytest.raises(TooLong, match=r"within 0\.1 s"):
            hand.call(lambda: never.wait(60), 0.1)
        assert hand.call(lambda: 7, 20) == 7
        with pytest.raises(ZeroDivisionError):
            hand.call(lambda: 1 / 0, 20)
    never.set()
