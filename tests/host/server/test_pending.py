"""Requests wait in bounded lines, one a board, served in turn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from host.server.pending import FairQueue, Pending
from tests.host.server.states import make_pending, make_version

VERSION, OTHER = make_version("one"), make_version("two")


def queue(per_client: int = 8, total: int = 100, total_bytes: int = 10_000) -> FairQueue:
    return FairQueue(per_client=per_client, total=total, total_bytes=total_bytes)


def anything(_: Pending) -> bool:
    return True


def names(taken: list[Pending]) -> str:
    return " ".join(f"{pending.client.decode()}{pending.request.id}" for pending in taken)


def filled(text: str) -> FairQueue:
    lines = queue()
    for name in text.split():
        assert lines.put(make_pending(VERSION, client=name[0], number=int(name[1:])))
    return lines


def test_boards_are_served_in_turn_each_in_its_own_order() -> None:
    assert names(filled("a1 a2 a3 b1 c1 c2").take(10, anything)) == "a1 b1 c1 a2 c2 a3"


def test_the_turn_goes_on_where_it_ended() -> None:
    lines = filled("a1 a2 b1 b2 c1")
    assert [names(lines.take(2, anything)) for _ in range(4)] == ["a1 b1", "c1 a2", "b2", ""]


def test_who_comes_back_with_more_does_not_overtake() -> None:
    lines = filled("a1 b1")
    assert names(lines.take(1, anything)) == "a1"
    lines.put(make_pending(VERSION, client="a", number=2))
    assert names(lines.take(2, anything)) == "b1 a2"


def test_a_batch_is_of_one_version() -> None:
    lines = filled("a1 b1")
    lines.put(make_pending(OTHER, client="c", number=1))
    lines.put(make_pending(VERSION, client="d", number=1))
    assert names(lines.take(10, anything)) == "a1 b1 d1"
    assert names(lines.take(10, anything)) == "c1"


def test_what_a_worker_died_over_comes_alone_and_first() -> None:
    lines = filled("a1 b1")
    again = make_pending(VERSION, client="z", number=1)
    again.begun = 1
    lines.put_back(again)
    assert [names(lines.take(4, anything)) for _ in range(2)] == ["z1", "a1 b1"]


def owned(owner: str, client: str, number: int = 1) -> Pending:
    pending = make_pending(VERSION, client=client, number=number)
    pending.owner = owner.encode()
    return pending


def test_many_connections_of_one_owner_have_one_share() -> None:
    lines = queue()
    for number in range(60):
        lines.put(owned("hostile", f"h{number}"))
    for number in range(1, 5):
        lines.put(owned("board", "b", number))
    served = [one.owner for one in lines.take(8, anything)]
    assert served.count(b"board") == 4
    assert sum(lines.put(owned("hostile", f"more {number}")) for number in range(60)) < 30


def test_whose_pictures_take_long_comes_less_often() -> None:
    """Time is shared, not pictures: at 100 ms against 1 ms, one in a hundred."""
    lines = queue(per_client=1000, total=4000, total_bytes=1 << 20)
    for number in range(1, 1000):
        lines.put(owned("hostile", "h", number))
        lines.put(owned("board", "b", number))
    spent_s = Counter[bytes]()
    for _ in range(500):
        (one,) = lines.take(1, anything)
        cost_s = 0.1 if one.owner == b"hostile" else 0.001
        lines.charge(one, cost_s)
        spent_s[one.owner] += cost_s  # type: ignore[assignment]
    assert spent_s[b"hostile"] < 1.5 * spent_s[b"board"]


def test_who_has_waited_for_nothing_has_saved_nothing() -> None:
    lines = queue(per_client=100)
    for number in range(1, 50):
        lines.put(owned("busy", "b", number))
    for _ in range(40):
        (one,) = lines.take(1, anything)
        lines.charge(one, 0.01)
    for number in range(1, 50):
        lines.put(owned("new", "n", number))
    served = [one.owner for one in lines.take(8, anything)]
    assert served.count(b"busy") >= 1


def test_every_bound_holds() -> None:
    lines = queue(per_client=2, total=4, total_bytes=1000)
    taken = [lines.put(make_pending(VERSION, client=name)) for name in "aaabbcc"]
    assert taken == [True, True, False, True, True, False, False]
    assert (lines.count, lines.size_bytes) == (4, 400)
    small = queue(total_bytes=250)
    assert [small.put(make_pending(VERSION, client=name)) for name in "abc"] == [True, True, False]


def test_what_is_removed_makes_room() -> None:
    lines = filled("a1 a2 b1")
    assert names(lines.remove(lambda one: one.client == b"a")) == "a1 a2"
    assert (lines.count, lines.size_bytes) == (1, 100)
    assert names(lines.take(9, anything)) == "b1"


def test_the_oldest_is_found_among_the_heads() -> None:
    lines = filled("a5 b3")
    oldest = lines.oldest(anything)
    assert oldest is not None
    assert names([oldest]) == "b3", "its number is its time of arrival here"
    assert lines.oldest(lambda _: False) is None


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60), st.integers(1, 8))
def test_nothing_is_lost_and_nobody_waits_for_a_second_turn_of_another(clients: list[str], most: int) -> None:
    lines = queue(per_client=100)
    for number, client in enumerate(clients, start=1):
        lines.put(make_pending(VERSION, client=client, number=number))
    waiting, served = Counter(clients), Counter[str]()
    while taken := lines.take(most, anything):
        for pending in taken:
            name = pending.client.decode()
            served[name] += 1
            assert all(served[other] >= served[name] - 1 for other in waiting if served[other] < waiting[other])
    assert served == waiting
    assert (lines.count, lines.size_bytes) == (0, 0)
