"""What stands in the channels, also when the other side is hostile."""

import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vm_launcher.boinc.messages import (
    MOST_URL_LENGTH,
    AppStatus,
    Order,
    format_page,
    format_status,
    has_trickle_down,
    parse_heartbeat,
    parse_orders,
)
from vm_launcher.boinc.shared_memory import MOST_TEXT_BYTES
from vm_launcher.boinc.tags import find_number, find_text, without

TAGS = [*(f"<{order}/>" for order in Order), "<wss>", "<max_wss>", "<network_suspended/>", "</wss>"]
HOSTILE = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=20))).map("".join)


@pytest.mark.parametrize("order", Order)
def test_each_order(order: Order) -> None:
    assert parse_orders(f"<{order.value}/>\n") == (order,)


def test_several_orders_come_in_a_fixed_sequence() -> None:
    assert parse_orders("<abort/> <nonsense/> <resume/>") == (Order.RESUME, Order.ABORT)


@pytest.mark.parametrize("text", ["", "suspend", "<suspend>", "<SUSPEND/>", "<dont_suspend/>"])
def test_what_is_no_order(text: str) -> None:
    assert parse_orders(text) == ()


def test_a_heartbeat_as_the_client_writes_it() -> None:
    text = "<heartbeat/>\n<wss>1.500000e+06</wss>\n<max_wss>3.000000e+09</max_wss>\n"
    quiet, cut_off = parse_heartbeat(text), parse_heartbeat(text + "<network_suspended/>\n")
    assert (quiet.memory_bytes, quiet.memory_limit_bytes) == (1.5e6, 3e9)
    assert (quiet.network_suspended, cut_off.network_suspended) == (False, True)


@pytest.mark.parametrize("number", ["nan", "inf", "-5", "1e400", "", "abc", "0", "9" * 60, "."])
def test_a_memory_limit_that_is_none(number: str) -> None:
    assert parse_heartbeat(f"<max_wss>{number}</max_wss>").memory_limit_bytes is None


@given(HOSTILE)
@example("<max_wss>" + "9" * 5000)
def test_any_text_gives_finite_numbers_and_known_orders(text: str) -> None:
    beat = parse_heartbeat(text)
    assert 0 <= beat.memory_bytes < math.inf
    assert beat.memory_limit_bytes is None or 0 < beat.memory_limit_bytes < math.inf
    assert len(set(parse_orders(text))) == len(parse_orders(text))
    assert has_trickle_down(text) is ("<have_trickle_down/>" in text)


@given(
    st.builds(
        AppStatus,
        cpu_seconds=st.floats(),
        checkpoint_cpu_seconds=st.floats(),
        fraction_done=st.floats(),
        other_pid=st.none() | st.integers(-1, 2**31),
        want_network=st.booleans(),
    )
)
def test_any_status_fits_and_has_both_cpu_times(status: AppStatus) -> None:
    text = format_status(status)
    assert len(text) <= MOST_TEXT_BYTES
    for name in ("current_cpu_time", "checkpoint_cpu_time", "fraction_done"):
        number = find_number(text, name)
        assert number is not None and number >= 0
    assert 0 <= (find_number(text, "fraction_done") or 0) <= 1
    pid = find_number(text, "other_pid")
    assert pid == (status.other_pid if status.other_pid and status.other_pid > 0 else None)


@pytest.mark.parametrize(
    "url", ["http://a/<b>", "http://a/?b&c", "a b", "x" * (MOST_URL_LENGTH + 1)]
)
def test_a_url_that_would_break_the_clients_xml(url: str) -> None:
    with pytest.raises(ValueError, match="no URL"):
        format_page(url)


def test_elements_are_found_and_left_out() -> None:
    assert without("a<x>1<x>2</x>3</x>b", "x") == "ab"
    assert without("a<x>open", "x") == "a<x>open"
    assert find_text("<x>1</x><x>2</x>", "x") == "1"
    assert find_text("<x/>", "x") == ""
    assert find_text("<x>", "x") is None


def test_a_large_hostile_text_takes_no_time() -> None:
    text = "<x>" * 1_000_000
    start = time.process_time()
    assert without(text, "x") == text
    assert find_text(text, "x") is None
    assert time.process_time() - start < 1
