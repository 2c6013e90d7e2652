"""`khotan mappings` and `khotan caches`."""
