"""Notebook widgets. Results reach them by kind, through `interp.display`; `Selection` links several."""

from __future__ import annotations

from interp.widgets.views.attention_map import AttentionMapView as AttentionMapView
from interp.widgets.views.base import View as View
from interp.widgets.views.compare_view import CompareView as CompareView
from interp.widgets.views.compare_view import compare as compare
from interp.widgets.views.curves_view import CurvesView as CurvesView
from interp.widgets.views.entropy_view import EntropyView as EntropyView
from interp.widgets.views.explore import Explore as Explore
from interp.widgets.views.head_grid import HeadGrid as HeadGrid
from interp.widgets.views.intervene import Intervene as Intervene
from interp.widgets.views.kinds import VIEWS as VIEWS
from interp.widgets.views.needle_grid import NeedleGrid as NeedleGrid
from interp.widgets.views.pattern_atlas import PatternAtlas as PatternAtlas
from interp.widgets.views.sae_feature import SAEFeature as SAEFeature
from interp.widgets.views.selection import Selection as Selection
from interp.widgets.views.sink_explorer import SinkExplorer as SinkExplorer
from interp.widgets.views.static import static as static
from interp.widgets.views.successor_table import SuccessorTable as SuccessorTable
from interp.widgets.views.token_view import TokenView as TokenView

__all__ = [
    "VIEWS",
    "AttentionMapView",
    "CompareView",
    "CurvesView",
    "EntropyView",
    "Explore",
    "HeadGrid",
    "Intervene",
    "NeedleGrid",
    "PatternAtlas",
    "SAEFeature",
    "Selection",
    "SinkExplorer",
    "SuccessorTable",
    "TokenView",
    "View",
    "compare",
    "static",
]
