"""Sparse autoencoders on attention outputs z: harvest, train, measure; in SAELens' file format."""

from __future__ import annotations
