"""The stores of khotan's own tables. One module per kind of row."""
