"""`khotan vars` and `khotan wire vars`."""
