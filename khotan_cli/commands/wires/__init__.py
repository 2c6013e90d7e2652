"""`khotan wire`."""
