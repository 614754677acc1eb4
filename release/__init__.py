"""Tools for a release: documentation, monitoring files and licences."""
