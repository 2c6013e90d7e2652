"""The operations of the management API, one module per noun, and the endpoint of webhooks."""
