"""Sparse autoencoders on attention outputs z: harvest, train, measure; in SAELens' file format."""
