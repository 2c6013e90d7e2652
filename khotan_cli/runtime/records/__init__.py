"""Resources with their mappings, and caches: what flows keep about records besides the records."""
