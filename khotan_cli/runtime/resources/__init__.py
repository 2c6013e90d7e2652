"""Resources with their mappings, and caches: what flows and handlers share."""
