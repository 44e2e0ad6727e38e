"""Attention maps that are computed where they are looked at."""

from __future__ import annotations

from interp.maps.attention_map import DENSE_LIMIT as DENSE_LIMIT
from interp.maps.attention_map import AttentionMap as AttentionMap
from interp.maps.source import MapSource as MapSource

__all__ = ["DENSE_LIMIT", "AttentionMap", "MapSource"]
