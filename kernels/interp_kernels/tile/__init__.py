"""The operation `tile`: api.py (signature, checks, dispatch) and one module for each backend."""
