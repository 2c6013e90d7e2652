"""khotan: integrations for Python applications, written into your own repository."""

__version__ = "0.1.0"
