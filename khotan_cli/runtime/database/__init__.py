"""The database: how is SQL reached? Connections, transactions, errors, and the tables of khotan."""
