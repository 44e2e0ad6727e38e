"""The operation `columns`: api.py (signature, checks, dispatch) and one module for each backend."""
