"""`khotan flows`."""
