"""Where the time of a step goes."""

from types import SimpleNamespace

from benchmarks.profile_step import KERNELS, TOGETHER, Clock, table


def test_every_kernel_is_where_it_is_watched():
    for _, module, name in KERNELS:
        assert callable(getattr(module, name))


def test_what_is_made_of_others_can_be_taken_apart():
    for module, name in TOGETHER:
        assert callable(getattr(module, name).py_func)


def test_a_watched_call_is_timed_and_gives_what_it_gave():
    module = SimpleNamespace(double=lambda number: 2 * number)
    clock = Clock()
    clock.watch("doubling", module, "double")
    assert module.double(4) == 8
    assert clock.seconds["doubling"] > 0


def test_what_no_kernel_takes_is_everything_else():
    found = [(0.015, {"attention": 0.002, "matrix products": 0.006}) for _ in range(3)]
    title, *lines = table("32 decoding", [(0.010, {})] * 3, found)
    assert title.strip() == "32 decoding: a step takes 10.0 ms"
    assert [line.split()[-2] for line in lines] == ["60.0", "20.0", "20.0"]
    assert lines[0].split()[0] == "matrix"
