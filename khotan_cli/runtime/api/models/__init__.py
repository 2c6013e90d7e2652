"""The documents of the management API, and how objects are shown as documents."""
