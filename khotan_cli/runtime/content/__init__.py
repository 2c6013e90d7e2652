"""Content: how are values written into requests and read from responses? JSON, forms, CSV, XML, queries, link headers."""
