"""The contract check: the declared shape of a response against the observed one, with Pydantic as the judge."""
