"""Paging: where is the next page? Sans-IO."""
