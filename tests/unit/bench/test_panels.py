"""The picture of the dashboard is well-formed, and shows what Prometheus has answered."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from bench.panels import Line, Picture
from bench.site import ROOT

PANELS = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())["panels"]
TEXT = "{http://www.w3.org/2000/svg}text"


def texts(found: Sequence[Line]) -> list[str | None]:
    """All words of the picture, with these series in each panel."""

    def of_panel(_panel: Mapping[str, Any]) -> Sequence[Line]:
        return found

    return [
        element.text
        for element in ET.fromstring(Picture([0.0, 2.0, 4.0, 6.0]).draw(PANELS, of_panel, "<a fleet>")).iter(TEXT)
    ]


def test_each_panel_has_its_title_and_its_series() -> None:
    shown = texts([("one & only", {0.0: 0.0, 2.0: 1.0, 4.0: float("nan"), 6.0: 1.0})])

    assert {panel["title"] for panel in PANELS} <= set(shown)
    assert shown.count("one & only") >= 10
    assert "<a fleet>" in shown


def test_a_panel_without_series_says_so() -> None:
    assert "no data" in texts([])
