"""What hosts do differently: values that arrive one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser


def test_values_that_come_one_by_one_are_shown_when_all_are_there(mount: Callable[..., Any]) -> None:
    from map_cases import random_map

    from interp.widgets.views import AttentionMapView

    shown, other = mount(AttentionMapView(random_map(40, 40)[0])), AttentionMapView(random_map(23, 23)[0])
    shown.view.show(other.source, title="another", payload=other.payload)
    values = {
        name: getattr(shown.view, name) for name in ("rev", "payload", "title")
    }  # as marimo tells of them, in any order
    shown.page.evaluate(
        "values => Object.entries(values).forEach((pair) => window.host.take(Object.fromEntries([pair])))", values
    )
    shown.settled()
    shown.page.get_by_label("query to jump to").fill("30")
    shown.page.get_by_role("button", name="jump").click()
    shown.page.get_by_text("queries are 0 to 22").wait_for()
