"""HTTP: how is one request sent, and what came back? No database, no plug."""
