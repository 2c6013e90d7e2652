"""The database: connections, transactions, errors and the tables of khotan."""
