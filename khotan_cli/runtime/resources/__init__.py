"""Resources with mappings, and caches, shared by flows and handlers."""
