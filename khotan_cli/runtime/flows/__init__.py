"""The user's interface to flows: the context and the decorators."""
