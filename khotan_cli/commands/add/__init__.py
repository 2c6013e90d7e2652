"""`khotan add`."""
