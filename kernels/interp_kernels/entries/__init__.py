"""The operation `entries`: api.py (signature, checks, dispatch) and one module for each backend."""
