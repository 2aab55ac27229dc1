"""The rate of one name is kept, and memory is bounded whatever names come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from robustzs_serving.edge.rate import RateLimiter, address_name, retry_after


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, 3, 100, clock=clock)
    assert [limiter.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert abs(limiter.take("a") - 0.5) < 1e-9
    assert limiter.take("b") == 0.0, "names do not share"
    clock.now += 0.5
    assert limiter.take("a") == 0.0
    assert limiter.take("a") > 0.0
    clock.now += 100.0
    assert [limiter.take("a") > 0 for _ in range(4)] == [False, False, False, True]


@given(
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60),
    st.floats(0.5, 50.0),
    st.integers(1, 10),
)
def test_never_more_than_burst_and_rate_allow(
    steps: list[float], per_second: float, burst: int
) -> None:
    clock = Clock()
    limiter = RateLimiter(per_second, burst, 10, clock=clock)
    passed = 0
    for step in steps:
        clock.now += step
        wait = limiter.take("a")
        passed += wait == 0.0
        if wait:
            clock.now += wait + 1e-6
            assert limiter.take("a") == 0.0, "waiting as told is enough"
            passed += 1
    elapsed = clock.now - 1_000.0
    assert passed <= burst + elapsed * per_second + 1e-3


def test_memory_is_bounded_and_nobody_is_locked_out_by_others() -> None:
    clock = Clock()
    limiter = RateLimiter(1.0, 1, 50, clock=clock)
    for number in range(5_000):
        limiter.take(f"name {number}")
        assert len(limiter) <= 50
    assert limiter.take("new") == 0.0
    clock.now += 10.0
    limiter.take("another")
    assert len(limiter) == 1, "who may ask again is forgotten"


def test_no_rate_is_no_limit_and_no_memory() -> None:
    limiter = RateLimiter(0.0, 1, 50)
    assert not any(limiter.take("a") for _ in range(1_000))
    assert len(limiter) == 0


def test_addresses_stand_for_who_has_them() -> None:
    assert address_name("192.0.2.1") != address_name("192.0.2.2")
    assert address_name("2001:db8::1") == address_name("2001:db8::ffff:1")
    assert address_name("2001:db8:0:1::1") != address_name("2001:db8:0:2::1")
    assert address_name("::ffff:192.0.2.1") == address_name("192.0.2.1")
    assert address_name("unix") == "address:unix"


def test_retry_after_is_a_whole_number_from_one() -> None:
    assert [retry_after(wait) for wait in (0.01, 1.0, 1.2)] == ["1", "1", "2"]
