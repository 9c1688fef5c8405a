"""The two sides, and more, of each comparison: this package, its baselines and its peers.

Each module is run in a process of its own, by ``child.py``, and may only import what its own
virtual environment has. A module has a function ``operations`` that sets up and returns what may be
measured, by name.
"""
