"""The store: what does khotan itself keep? One module per kind of row."""
