"""`khotan plug`."""
