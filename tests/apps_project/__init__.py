"""A project with apps of other authors that are built on Django's task framework."""
