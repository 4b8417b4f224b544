"""Reading the counters that the gates compare."""

import pytest
from orchqueue.determinism.counters import Counters, MetricsUnreadable

TEXT = """\
# TYPE tokens_out_total counter
tokens_out_total{pool_id="a",replica_id="a-0"} 3.0
tokens_out_total{pool_id="a",replica_id="a-1"} 4.0
tokens_out_total{pool_id="b",replica_id="b-0"} 5.0
# TYPE queue_depth gauge
queue_depth{pool_id="a"} 2.0
"""


def test_totals_are_over_the_series_that_carry_the_labels() -> None:
    counters = Counters.parse(TEXT)
    assert counters.total("tokens_out_total") == 12
    assert counters.total("tokens_out_total", pool_id="a") == 7
    assert counters.total("tokens_out_total", pool_id="a", replica_id="a-1") == 4
    assert counters.total("tokens_out_total", pool_id="c") == 0


def test_what_has_no_series_is_not_there() -> None:
    counters = Counters.parse(TEXT)
    assert counters.has("tokens_out_total")
    assert not counters.has("failovers_total")


def test_something_else_than_metrics_is_said_to_be_so() -> None:
    with pytest.raises(MetricsUnreadable, match="cannot be read"):
        Counters.parse("<html>no metrics here</html>\n")
