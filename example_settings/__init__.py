"""A project that you can run. Every setting comes from the environment."""
