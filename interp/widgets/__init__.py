"""Pictures of results: plotly figures and the self-contained report. Results reach them by kind, through `interp.display`."""

from __future__ import annotations

from interp.widgets.figures import head_heatmap as head_heatmap
from interp.widgets.figures import map_heatmap as map_heatmap
from interp.widgets.kinds import PLOTS as PLOTS
from interp.widgets.report import report_page as report_page
from interp.widgets.report import write_report as write_report

__all__ = ["PLOTS", "head_heatmap", "map_heatmap", "report_page", "write_report"]
