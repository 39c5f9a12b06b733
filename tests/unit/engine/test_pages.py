"""The page pool gives out each page once, finds what is registered, and evicts what was left longest ago."""

import pytest

from transom.engine.kernels.cache import PAGE
from transom.engine.pages import CachedPage, PagePool, pages_of


def tokens(n):
    return [n] * PAGE


def chain(pool, *contents, salt="a"):
    """Pages held by one sequence, registered one after the other."""
    link, pages = salt, []
    for content in contents:
        page = pool.register(link, tokens(content), pool.get_new())
        pages.append(page)
        link = page.serial
    return pages


def found(pool, *contents, salt="a"):
    link, numbers = salt, []
    for content in contents:
        page = pool.get_cached(link, tokens(content))
        if page is None:
            break
        numbers.append(page.number)
        link = page.serial
    return numbers


def numbers(pages):
    return [page.number for page in pages]


@pytest.mark.parametrize(("positions", "pages"), [(0, 0), (1, 1), (16, 1), (17, 2), (160, 10)])
def test_positions_take_whole_pages(positions, pages):
    assert pages_of(positions) == pages


def test_the_scratch_page_is_never_given_out():
    pool = PagePool(5)
    assert sorted(pool.get_new() for _ in range(4)) == [1, 2, 3, 4]
    with pytest.raises(IndexError, match="no page is available"):
        pool.get_new()


def test_private_pages_come_back_free():
    pool = PagePool(5)
    held = [pool.get_new(), pool.get_new()]
    assert (pool.used, pool.available, pool.cached) == (2, 2, 0)
    pool.release(held)
    assert (pool.used, pool.available, pool.cached) == (0, 4, 0)


def test_a_prefix_is_found_page_by_page_and_only_from_its_beginning():
    pool = PagePool(9)
    pages = chain(pool, 1, 2, 3)
    assert found(pool, 1, 2, 3) == numbers(pages)
    assert found(pool, 1, 2, 9) == numbers(pages[:2])
    assert found(pool, 2, 3) == []


def test_the_same_tokens_after_another_prefix_are_another_page():
    pool = PagePool(9)
    first, second = chain(pool, 1, 7), chain(pool, 2, 7)
    assert found(pool, 1, 7) == numbers(first)
    assert found(pool, 2, 7) == numbers(second)


def test_nothing_is_found_under_another_salt():
    pool = PagePool(9)
    chain(pool, 1, salt="a")
    assert found(pool, 1, salt="b") == []
    # Not even a project that is called like a serial.
    chain(pool, 1, 2, salt="0")
    assert found(pool, 2, salt="0") == []


def test_what_nobody_holds_is_kept_and_found_until_its_room_is_needed():
    pool = PagePool(4)
    pages = chain(pool, 1, 2, 3)
    pool.release(numbers(pages))
    assert (pool.used, pool.available, pool.cached) == (0, 3, 3)
    assert found(pool, 1, 2, 3) == numbers(pages)
    pool.touch(pages[0])
    assert (pool.used, pool.cached) == (1, 2)


def test_children_are_evicted_before_their_parents():
    pool = PagePool(4)
    pages = chain(pool, 1, 2, 3)
    pool.release(numbers(pages))
    assert pool.get_new() == pages[2].number
    assert found(pool, 1, 2, 3) == numbers(pages[:2])
    assert pool.get_new() == pages[1].number
    assert found(pool, 1, 2, 3) == numbers(pages[:1])


def test_the_prefix_released_longest_ago_goes_first_and_a_use_renews_it():
    pool = PagePool(4)
    old, new = chain(pool, 1), chain(pool, 2)
    pool.release(numbers(old))
    pool.release(numbers(new))
    pool.touch(old[0])
    pool.release(numbers(old))
    assert pool.get_new() not in numbers(old + new)
    assert pool.get_new() == new[0].number
    assert found(pool, 1) == numbers(old)


def test_a_held_page_is_not_evicted():
    pool = PagePool(3)
    pages = chain(pool, 1)
    assert pool.get_new() != pages[0].number
    with pytest.raises(IndexError):
        pool.get_new()


def test_a_page_is_freed_when_the_last_holder_lets_go():
    pool = PagePool(3)
    (page,) = chain(pool, 1)
    pool.touch(page)
    assert pool.is_shared(page.number)
    pool.release([page.number])
    assert (pool.used, pool.cached) == (1, 0)
    pool.release([page.number])
    assert (pool.used, pool.cached) == (0, 1)


def test_of_two_that_computed_the_same_page_the_first_is_kept():
    pool = PagePool(4)
    (first,) = chain(pool, 1)
    second = pool.get_new()
    assert pool.register("a", tokens(1), second) is first
    pool.release([second])
    assert (pool.used, pool.cached) == (1, 0)


def test_a_child_of_an_evicted_parent_is_not_found_under_the_parents_successor():
    pool = PagePool(4)
    parent, child = chain(pool, 1, 2)
    pool.release([parent.number])
    while found(pool, 1):
        pool.get_new()
    pool.release([child.number])
    pool.register("a", tokens(1), pool.get_new())
    assert len(found(pool, 1, 2)) == 1


@pytest.mark.parametrize("sharers", [0, 1, 2])
def test_a_forgotten_page_is_found_no_more_and_freed_by_its_last_holder(sharers):
    pool = PagePool(3)
    (page,) = chain(pool, 1)
    for _ in range(sharers):
        pool.touch(page)
    pool.forget(page)
    assert found(pool, 1) == []
    for _ in range(sharers + 1):
        assert (pool.used, pool.cached) == (1, 0)
        pool.release([page.number])
    assert (pool.used, pool.cached, pool.available) == (0, 0, 2)


def test_forgetting_a_page_that_nobody_holds_frees_it():
    pool = PagePool(3)
    (page,) = chain(pool, 1)
    pool.release([page.number])
    pool.forget(page)
    pool.forget(page)
    assert (pool.cached, pool.available) == (0, 2)


def test_a_page_forgotten_long_ago_does_not_take_its_successor_along():
    pool = PagePool(2)
    (page,) = chain(pool, 1)
    pool.forget(page)
    pool.release([page.number])
    (successor,) = chain(pool, 1)
    pool.release([successor.number])
    pool.forget(page)
    assert found(pool, 1) == [successor.number]
    assert pool.cached == 1


def test_scores_that_list_more_replace_those_that_list_fewer():
    page = CachedPage(("a", ()), 0, 1)
    assert not page.has_scores(0)
    page.promised = 2
    assert page.has_scores(2)
    assert not page.has_scores(3)
    page.keep_scores([None], 0)
    assert page.has_scores(2)
    page.keep_scores([None, None], 2)
    page.keep_scores([None], 1)
    assert (page.scores, page.top, page.promised) == ((None, None), 2, -1)
